"""Where a run may end, and what it makes on the way there."""

from typing import Literal

End = Literal["encode", "retrieve", "rerank", "evaluate", "report", "analyse"]

_STAGE1 = ("ingest", "tokens", "encode", "fuse")
_OUTPUTS = ("publish", "report", "ranked")
_PROBES = ("dropped", "dropped_scores", "probe")

_CHOOSING = ("embeddings", "threshold", "retrieve")
"""Of a first stage that is handed over, its embeddings come first; then what K depends on, where it
is adaptive."""

MADE: dict[End, tuple[str, ...]] = {
    "encode": _STAGE1,
    "retrieve": (*_STAGE1, *_CHOOSING, "evaluate", *_OUTPUTS),
    "rerank": (*_STAGE1, *_CHOOSING, "rerank", "rank"),
    "evaluate": (*_STAGE1, *_CHOOSING, "rerank", "rank", "evaluate"),
    "report": (*_STAGE1, *_CHOOSING, "rerank", "rank", "evaluate", *_OUTPUTS),
    "analyse": (*_STAGE1, *_CHOOSING, "rerank", "rank", "evaluate", *_PROBES, *_OUTPUTS),
}
"""The stages and outputs of a run to each end, by name, in their order. One that ends with
candidates is evaluated and reported as what it is: stage 1 alone."""


def is_measured(until: End) -> bool:
    """Whether a run to this end is evaluated, and so has an id."""
    return "evaluate" in MADE[until]


def needs_stage2(until: End) -> bool:
    """Whether a run to this end scores pairs."""
    return "rerank" in MADE[until]
