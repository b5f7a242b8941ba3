"""What the artifacts of a run took to make, summed over their sittings."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storage import schemas
from storage.sittings import Sitting, sittings_of
from storage.view import View
from storage.views import Evaluated, KeptTokens

GIGA = 10**9

SUMMED = ("images", "queries", "pairs")


def cost_table(evaluated: Evaluated) -> pa.Table:
    """A row for each artifact that the run is made of, in the order of their stages; of kept image
    tokens, those that a sitting has read and that are still there."""
    views = lineage(evaluated)
    sittings = {view: sittings_of(view) for view in views}
    named = {one.tokens for some in sittings.values() for one in some if one.tokens}
    kept = [KeptTokens(evaluated.store, name) for name in sorted(named)]
    of_tokens = {view: sittings_of(view) for view in kept if view.is_whole}
    first, *others = (_row(view, some) for view, some in sittings.items())
    rows = [first, *(_row(view, some) for view, some in of_tokens.items()), *others]
    return pa.Table.from_pylist(rows, schemas.COSTS)


def lineage(evaluated: Evaluated) -> list[View]:
    """The artifacts that a run is made of, in the order of their stages: a late fusion's fitted
    weight is one, but not the run that it was fitted on, nor one that calibrates K. Raises
    StoreCorrupt where one is not whole."""
    retrieved = evaluated.candidates
    embedded, ranked = retrieved.embedded, evaluated.ranked if evaluated.is_reranked else None
    views: list[View | None] = [
        evaluated.ingested,
        retrieved.encoded,
        retrieved.fused,
        embedded,
        retrieved.thresholds,
        retrieved,
    ]
    if ranked is not None:
        views += [ranked.scored, ranked.fitted, ranked]
    return [view for view in (*views, evaluated) if view is not None]


def _row(view: View, sittings: Sequence[Sitting]) -> dict[str, Any]:
    parts, made_with = len(view.part_names()), view.made_with()
    row = {
        "stage": view.stage,
        "sittings": len(sittings),
        "unfinished": sum(not one.is_ended for one in sittings),
        "recorded": min(1.0, sum(one.parts for one in sittings) / max(1, parts)),
        "made_with": [f"{name} {version}" for name, version in made_with.items()],
    }
    return row | (_sums(sittings) if sittings else {})


def _sums(sittings: Sequence[Sitting]) -> dict[str, Any]:
    """0 is told as NULL of what a stage does not count."""
    return {
        "began_at": _naive(sittings[0].began_at),
        "seconds": sum(one.seconds for one in sittings),
        **{name: sum(getattr(one, name) for one in sittings) or None for name in SUMMED},
        "copied": sum(one.copied for one in sittings),
        "gflop": sum(one.flops for one in sittings) / GIGA or None,
        "peak_memory": max(one.peak_memory for one in sittings),
        "peak_gpu_memory": max(
            (one.peak_gpu_memory for one in sittings if one.peak_gpu_memory is not None),
            default=None,
        ),
        "device": "; ".join(_distinct(one.device for one in sittings)),
        "processor": "; ".join(_distinct(one.processor for one in sittings)),
        "threads": _common([one.threads for one in sittings]),
        "processes": _common([one.processes for one in sittings]),
    }


def _naive(time: str) -> datetime:
    """In UTC, as the catalog has times."""
    return datetime.fromisoformat(time).astimezone(UTC).replace(tzinfo=None)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _common(values: Sequence[int]) -> int | None:
    return values[0] if len(set(values)) == 1 else None
