"""Measures that look at where a target ranks, not only whether: MRR, and CIRCO's mAP."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cir_core.metrics.recall import Metric, TargetRanks, per_stage


@dataclass(frozen=True)
class AllTargetRanks:
    """Per labelled query: distinct 1-based ranks of all its ground truths under both stages, in
    any order. A ground truth that no ranking can contain has a rank beyond every k."""

    category: Sequence[str]
    stage1: Sequence[Int[np.ndarray, " target"]]
    stage2: Sequence[Int[np.ndarray, " target"]]


def reciprocal_rank_metrics(ranks: TargetRanks) -> list[Metric]:
    """MRR: the mean of 1 / rank of the target that counts, over the whole gallery's order.

    No labelled query, no rows.
    """
    before, after = 1 / ranks.stage1.astype(float), 1 / ranks.stage2.astype(float)
    return per_stage(ranks.category, before, after, "gallery", "mrr", 0)


def mean_average_precision(ranks: AllTargetRanks, *, ks: Sequence[int]) -> list[Metric]:
    """mAP@k as CIRCO's server computes it, see ``average_precision``. No query, no rows."""
    metrics = []
    for k in ks:
        before, after = (
            np.array([average_precision(query, k) for query in stage])
            for stage in (ranks.stage1, ranks.stage2)
        )
        metrics += per_stage(ranks.category, before, after, "gallery", "map", k)
    return metrics


def average_precision(ranks: Int[np.ndarray, " target"], k: int) -> float:
    """AP@k: the sum of precision@r over the ranks r <= k that hold a ground truth, divided by
    min(number of ground truths, k) (CIRCO, arXiv 2303.15247).

    Between 0 and 1; with a single ground truth it is 1 / rank, or 0 beyond k. Raises ValueError
    without ground truths.
    """
    if not len(ranks):
        raise ValueError("average precision needs a ground truth")
    hits: Float[np.ndarray, " hit"] = np.sort(ranks[ranks <= k]).astype(float)
    precision = np.arange(1, len(hits) + 1) / hits
    return float(precision.sum() / min(len(ranks), k))
