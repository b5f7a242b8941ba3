"""Recall and coverage from target ranks, with 95 % intervals; macro averages over categories."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cir_core.metrics.significance import gain_interval, mean_interval
from cir_core.types import Pool

GAIN = "gain"
"""In place of a stage: the paired difference of the two."""

CIRR_AVERAGE_K = 5

AVERAGE = "average"
"""Category of the macro average: the mean of the categories' values, each category weighing one."""

MICRO = "micro"
"""Category of the micro average: the mean over all queries, each query weighing one."""


@dataclass(frozen=True)
class Metric:
    """One number of a report; ``value`` and interval are fractions, ``n`` the queries behind it."""

    category: str
    stage: str
    pool: Pool
    metric: str
    k: int
    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class TargetRanks:
    """Per labelled query: 1-based rank, under both stages, of the target that counts: the best,
    or the first alone where the protocol says so.

    Stage 2's order is the re-ranked candidates, then the rest of the gallery as stage 1 left it,
    so a target that is no candidate has the same rank under both.
    """

    category: Sequence[str]
    stage1: Int[np.ndarray, " query"]
    stage2: Int[np.ndarray, " query"]


def recall_metrics(
    ranks: TargetRanks, *, ks: Sequence[int], pool: Pool, metric: str = "recall"
) -> list[Metric]:
    """R@k of stage 1, of stage 2, and the paired gain, per category, macro- and micro-averaged.

    Recall@k is the share of labelled queries whose target ranks at most k. No labelled query, no
    rows. With a single category there are no average rows.
    """
    metrics = []
    for k in ks:
        before, after = (ranks.stage1 <= k).astype(float), (ranks.stage2 <= k).astype(float)
        metrics += per_stage(ranks.category, before, after, pool, metric, k)
    return metrics


def per_stage(
    category: Sequence[str],
    before: Float[np.ndarray, " query"],
    after: Float[np.ndarray, " query"],
    pool: Pool,
    metric: str,
    k: int,
) -> list[Metric]:
    """Rows of a per-query measure: stage 1's, stage 2's, and their paired difference."""
    return [
        row
        for stage, values in (("stage1", before), ("stage2", after), (GAIN, after - before))
        for row in _per_category(category, values, stage, pool, metric, k)
    ]


def coverage_metrics(ranks: TargetRanks, *, k: int | Int[np.ndarray, " query"]) -> list[Metric]:
    """Share of queries with a target among the K candidates: the ceiling of stage 2's recall. Where
    each query has its own K, at k 0."""
    hits = (ranks.stage1 <= k).astype(float)
    at = k if isinstance(k, int) else 0
    return _per_category(ranks.category, hits, "stage1", "gallery", "coverage", at)


def cirr_average(gallery: TargetRanks, subset: TargetRanks) -> list[Metric]:
    """CIRR's headline: the mean of R@5 and R_subset@1, per stage; both over the same queries."""
    metrics = []
    for stage in ("stage1", "stage2"):
        recall_5 = (getattr(gallery, stage) <= CIRR_AVERAGE_K).astype(float)
        subset_1 = (getattr(subset, stage) <= 1).astype(float)
        metrics += _per_category(
            gallery.category, (recall_5 + subset_1) / 2, stage, "gallery", "cirr_average", 0
        )
    return metrics


def _per_category(
    category: Sequence[str],
    hits: Float[np.ndarray, " query"],
    stage: str,
    pool: Pool,
    metric: str,
    k: int,
) -> list[Metric]:
    interval = gain_interval if stage == GAIN else mean_interval
    groups = grouped(category, hits)
    rows = [(name, [group]) for name, group in groups.items()]
    if len(groups) > 1:
        rows += [(AVERAGE, list(groups.values())), (MICRO, [hits])]
    return [
        Metric(name, stage, pool, metric, k, *interval(values), n=sum(map(len, values)))
        for name, values in rows
    ]


def grouped(
    category: Sequence[str], hits: Float[np.ndarray, " query"]
) -> dict[str, Float[np.ndarray, " query"]]:
    """By category, in the order of their first queries."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(category))}
    group = np.array([numbers[name] for name in category], dtype=np.int64)
    ends = np.cumsum(np.bincount(group, minlength=len(numbers)))
    parts = np.split(hits[np.argsort(group, kind="stable")], ends[:-1])
    return dict(zip(numbers, parts, strict=True)) if numbers else {}
