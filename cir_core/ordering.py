"""The only sort of scores: higher first, ties by gallery order; non-finite scores are refused."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.errors import NonFiniteError

Scores = TypeVar("Scores", Tensor, np.ndarray)


def best_first(
    scores: Float[np.ndarray, " item"], position: Int[np.ndarray, " item"]
) -> Int[np.ndarray, " item"]:
    """Indices that sort by score descending, then by gallery position ascending.

    The same total order whatever the input's order. Raises NonFiniteError on NaN or infinity.
    """
    require_finite(scores, "scores")
    return np.lexsort((position, -scores))


def require_finite(values: Float[np.ndarray, "..."], what: str, names: Sequence[str] = ()) -> None:
    """Raises NonFiniteError: a NaN would silently fall out of every later comparison. It names
    whose values those are, where ``names`` has a name for each row."""
    if not np.isfinite(values).all():
        broken = [
            name for name, row in zip(names, values, strict=False) if not np.isfinite(row).all()
        ]
        raise NonFiniteError(
            f"{what} are not finite",
            item=", ".join(broken),
            cause="overflow in the model, or damaged weights",
            remedy="convert or train the model again; on a GPU, compare with --device cpu",
        )


def grouped_best_first(
    group: Int[np.ndarray, " item"],
    scores: Float[np.ndarray, " item"],
    position: Int[np.ndarray, " item"],
) -> tuple[Int[np.ndarray, " item"], Int[np.ndarray, " item"]]:
    """Sort items by group, and within a group best first; also each sorted item's 1-based rank."""
    require_finite(scores, "scores")
    order = np.lexsort((position, -scores, group))
    sorted_groups = group[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    sizes = np.diff(np.r_[starts, len(order)])
    ranks = np.arange(len(order)) - np.repeat(starts, sizes) + 1
    return order, ranks


def with_prior(scores: Scores, cosines: Scores, prior: float) -> Scores:
    """A pair's final score: what the dual encoder says of it, plus ``prior`` (the model config's)
    times stage 1's cosine. Prior 0 gives ``scores`` themselves."""
    return scores + prior * cosines if prior else scores
