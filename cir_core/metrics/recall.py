"""Recall and coverage from target ranks, with 95 % intervals; macro averages over categories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cir_core.types import Pool

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

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
        for stage, values in (("stage1", before), ("stage2", after), ("gain", after - before))
        for row in _per_category(category, values, stage, pool, metric, k)
    ]


def coverage_metrics(ranks: TargetRanks, *, k: int) -> list[Metric]:
    """Share of queries with a target among the K candidates: the ceiling of stage 2's recall."""
    hits = (ranks.stage1 <= k).astype(float)
    return _per_category(ranks.category, hits, "stage1", "gallery", "coverage", k)


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
    names = np.asarray(category)
    groups = {name: hits[names == name] for name in dict.fromkeys(category)}
    rows = [(name, *_mean_interval({name: group}), len(group)) for name, group in groups.items()]
    if len(groups) > 1:
        rows.append((AVERAGE, *_mean_interval(groups), len(hits)))
        rows.append((MICRO, *_mean_interval({MICRO: hits}), len(hits)))
    return [
        Metric(name, stage, pool, metric, k, value, low, high, n)
        for name, value, low, high, n in rows
    ]


def _mean_interval(
    groups: Mapping[str, Float[np.ndarray, " query"]],
) -> tuple[float, float, float]:
    """Mean of the groups' means, and its normal 95 % interval (groups independent).

    A group of one query has no variance to estimate: its interval is the value itself.
    """
    means = [group.mean() for group in groups.values()]
    variances = [
        group.var(ddof=1) / len(group) if len(group) > 1 else 0.0 for group in groups.values()
    ]
    value = float(np.mean(means))
    margin = Z_95 * float(np.sqrt(np.sum(variances))) / len(groups)
    return value, value - margin, value + margin
