"""What a linear map can read from features: ridge regression, fitted on other queries."""

import numpy as np
from jaxtyping import Float, Int

SEED = 20230526
"""Of the halves."""

LEAST_GROUPS = 20
"""Of a half at least ten: from fewer no map is learnt that tells anything."""

PENALTIES = 10.0 ** np.arange(-6, 5)
"""Tried, times the mean square of a feature's singular values."""


def read_linearly(
    features: Float[np.ndarray, "query feature"],
    wanted: Float[np.ndarray, "query number"],
    group: Int[np.ndarray, " query"],
) -> Float[np.ndarray, "query number"] | None:
    """What a linear map makes of each query's features, which was fitted on the other half.

    The groups are dealt into two halves, seeded, so that none is in both; each half is mapped by
    what the other has taught, in float64. The penalty is that of the fitted half's least
    generalised cross-validation error (Golub, Heath and Wahba, Technometrics 21, 1979). None of
    fewer than ``LEAST_GROUPS`` groups.
    """
    groups, of_query = np.unique(group, return_inverse=True)
    if len(groups) < LEAST_GROUPS:
        return None
    dealt = np.random.default_rng(SEED).permutation(len(groups)) % 2
    half = dealt[of_query]
    mapped = np.empty(wanted.shape)
    for mine in (0, 1):
        here, there = half == mine, half != mine
        mapped[here] = _fitted(features[there], wanted[there], features[here])
    return mapped


def _fitted(x: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """A ridge regression of y on x, with an intercept, of what is asked."""
    x, y, asked = (one.astype(np.float64) for one in (x, y, asked))
    of_x, of_y = x.mean(axis=0), y.mean(axis=0)
    left, sizes, right = np.linalg.svd(x - of_x, full_matrices=False)
    inside = left.T @ (y - of_y)
    outside = float(((y - of_y) ** 2).sum() - (inside**2).sum())
    scale = float(np.mean(sizes**2)) or 1.0
    errors = [_error(sizes**2, penalty * scale, inside, outside, len(x)) for penalty in PENALTIES]
    penalty = PENALTIES[int(np.argmin(errors))] * scale
    shrunk = (sizes / (sizes**2 + penalty))[:, None] * inside
    found: np.ndarray = of_y + (asked - of_x) @ (right.T @ shrunk)
    return found


def _error(
    squares: np.ndarray, penalty: float, inside: np.ndarray, outside: float, rows: int
) -> float:
    """Generalised cross-validation's, but for a constant factor; the intercept is a parameter."""
    kept = squares / (squares + penalty)
    residual = outside + float((((1 - kept)[:, None] * inside) ** 2).sum())
    return residual / max(rows - 1 - kept.sum(), 0.5) ** 2
