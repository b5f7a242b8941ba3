"""Late fusion of the stages: a pair's final score is stage 2's plus a weight times stage 1's."""

import numpy as np
from jaxtyping import Float, Int

from cir_core.types import Scale

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Tried where the weight is fitted, of standardised scores: from stage 2 alone to an order that is
nearly stage 1's."""

DIGITS = 3
"""Significant, of a weight of raw scores."""


def fused_scores(
    stage1: Float[np.ndarray, " pair"],
    stage2: Float[np.ndarray, " pair"],
    group: Int[np.ndarray, " pair"],
    position: Int[np.ndarray, " pair"],
    *,
    weight: float,
    scale: Scale,
) -> Float[np.ndarray, " pair"]:
    """``stage2 + weight * stage1`` in fp64, pair by pair; a ``group`` is a query's pool.

    Pairs of a group that have equal scores in both stages stay equal; ``position`` tells apart the
    pairs of a group, so that sums, and their last bits, do not depend on the order of the rows. No
    pairs: none.
    """
    if scale == "standardised":
        stage1, stage2 = (standardised(scores, group, position) for scores in (stage1, stage2))
    return stage2.astype(np.float64) + weight * stage1.astype(np.float64)


def standardised(
    scores: Float[np.ndarray, " pair"],
    group: Int[np.ndarray, " pair"],
    position: Int[np.ndarray, " pair"],
) -> Float[np.ndarray, " pair"]:
    """(score - mean) / deviation of its group, in fp64. A group of equal scores, or of one, says
    nothing and is 0: its deviation is 0, or what rounding of the mean leaves of that."""
    order, starts, sizes = _grouped(group, position)
    if not len(order):
        return np.zeros(0)
    ordered = scores[order].astype(np.float64)
    centred = ordered - np.repeat(np.add.reduceat(ordered, starts) / sizes, sizes)
    deviation = np.sqrt(np.add.reduceat(centred**2, starts) / sizes)
    is_constant = np.minimum.reduceat(ordered, starts) == np.maximum.reduceat(ordered, starts)
    shares = np.divide(1, deviation, out=np.zeros_like(deviation), where=~is_constant)
    result = np.empty(len(order))
    result[order] = centred * np.repeat(shares, sizes)
    return result


def weights_to_try(
    stage1: Float[np.ndarray, " pair"],
    stage2: Float[np.ndarray, " pair"],
    group: Int[np.ndarray, " pair"],
    position: Int[np.ndarray, " pair"],
    scale: Scale,
) -> tuple[float, ...]:
    """``WEIGHTS``; of raw scores, times how much further stage 2's lie apart than stage 1's, so
    that both scales are tried alike. Where stage 1's do not differ, as they are."""
    if scale == "standardised":
        return WEIGHTS
    spread1, spread2 = (_spread(scores, group, position) for scores in (stage1, stage2))
    ratio = spread2 / spread1 if spread1 and spread2 else 1.0
    return tuple(float(f"{weight * ratio:.{DIGITS}g}") for weight in WEIGHTS)


def _spread(scores: np.ndarray, group: np.ndarray, position: np.ndarray) -> float:
    """The mean deviation of a group."""
    order, starts, sizes = _grouped(group, position)
    if not len(order):
        return 0.0
    ordered = scores[order].astype(np.float64)
    centred = ordered - np.repeat(np.add.reduceat(ordered, starts) / sizes, sizes)
    return float(np.sqrt(np.add.reduceat(centred**2, starts) / sizes).mean())


def _grouped(
    group: np.ndarray, position: np.ndarray
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " group"], Int[np.ndarray, " group"]]:
    """Rows by group and position; where each group starts among these, and its size."""
    order = np.lexsort((position, group))
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    return order, starts, np.diff(np.r_[starts, len(order)])
