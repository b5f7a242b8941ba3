"""How measures and stages are called where people read."""

from collections.abc import Mapping

from cir_core.types import Pool

STAGES = {"stage1": "stage 1", "stage2": "stage 2", "gain": "gain"}

RECALLS: Mapping[Pool, str] = {"gallery": "recall", "subset": "recall_subset"}
"""The recall of each pool, as the table ``metrics`` has it."""

_MEASURES = {
    "recall": "R",
    "recall_subset": "R_subset",
    "map": "mAP",
    "mrr": "MRR",
    "cirr_average": "average",
}


CIRR_AVERAGE = "mean of R@5 and R_subset@1"
"""What CIRR's ``average`` is."""


def title_of(metric: str, k: int | str) -> str:
    """``R@10``, ``R_subset@1``, ``mAP@5``, ``MRR``: ``k`` is 0 where there is none, and may be
    several, ``1/2/3``."""
    name = _MEASURES.get(metric, metric)
    return f"{name}@{k}" if k else name
