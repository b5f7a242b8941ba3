"""Scores from an exit, for all candidates, and from the whole of stage 2, for those that go on: who
goes on, in which order all of them stand, and what recall may lose by it.

A query's candidates go on where the exit scores them within a reach of the best one. The others
stay in the ranking, behind those that went on, in the exit's order. So a dropped target has the
rank that the exit gives it, one that went on the full pass's rank or a better one, and a hit at k
is lost only where the full pass ranks the target among the first k, the exit does not, and the
target is dropped: for each query, up to some reach, and never beyond it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cir_core.ordering import grouped_best_first, require_finite


def below_best(
    group: Int[np.ndarray, " item"], scores: Float[np.ndarray, " item"]
) -> Float[np.ndarray, " item"]:
    """By how much each item scores lower than the best of its group, in float64; 0 for the best.
    Groups are numbers from 0. Raises NonFiniteError."""
    require_finite(scores, "scores of an exit")
    best = np.full(group.max(initial=-1) + 1, -np.inf)
    np.maximum.at(best, group, scores.astype(np.float64))
    return best[group] - scores


def cascade_ranks(
    group: Int[np.ndarray, " item"],
    goes_on: Bool[np.ndarray, " item"],
    exit_scores: Float[np.ndarray, " item"],
    scores: Float[np.ndarray, " item"],
    position: Int[np.ndarray, " item"],
) -> Int[np.ndarray, " item"]:
    """Each item's 1-based rank in its group: first those that go on, by ``scores``, then the others
    by the exit's; ties by position. ``scores`` of the others are not looked at, and may be NaN.
    Raises NonFiniteError for others that are not finite."""
    order, ranks = grouped_best_first(
        2 * group + ~goes_on, np.where(goes_on, scores, exit_scores), position
    )
    found = np.empty_like(ranks)
    found[order] = ranks
    went = np.bincount(group[goes_on], minlength=group.max(initial=-1) + 1)
    return found + np.where(goes_on, 0, went[group])


def reach_of_hits(
    below: Float[np.ndarray, " target"],
    exit_rank: Int[np.ndarray, " target"],
    full_rank: Int[np.ndarray, " target"],
    ks: Sequence[int],
) -> Float[np.ndarray, " target"]:
    """The reach from which on no hit at any of ``ks`` is lost, of queries whose best target among
    the candidates (by the full pass) is this far ``below_best``: 0, which is any reach, where the
    exit alone keeps every hit.

    What calibrates a cascade (``cir_core.conformal.threshold``): the loss is 1 up to that reach,
    and 0 from there on. A query without a target among its candidates has no hit to lose: 0.
    """
    lost = np.zeros(len(below), dtype=bool)
    for k in ks:
        lost |= (full_rank <= k) & (exit_rank > k)
    return np.where(lost, below, 0.0)
