"""Which K, from the curve of all: what a ceiling takes, what a budget buys, what is enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cir_core.metrics.significance import mean_interval

DIGITS = 12
"""Of a mean: equal means may differ by the rounding of their sums, and shall be equal."""


@dataclass(frozen=True)
class KCurve:
    """By K, ascending, and by category: recall@k as fractions, for each k; its ceiling; and the
    pairs that are scored in all. ``n`` are the labelled queries of each category, at least one.
    Numbers over the categories are macro averages. ``recall`` is empty where no order is known."""

    categories: Sequence[str]
    ks: Int[np.ndarray, " K"]
    pairs: Int[np.ndarray, " K"]
    coverage: Float[np.ndarray, "K category"]
    recall: Mapping[int, Float[np.ndarray, "K category"]]
    n: Int[np.ndarray, " category"]


def reaching(curve: KCurve, coverage: float) -> int | None:
    """The place of the smallest K with this ceiling, a fraction; None where none reaches it."""
    return _first(macro(curve.coverage) >= coverage)


def affordable(curve: KCurve, pairs: int) -> int | None:
    """The place of the largest K that scores no more than so many pairs; None where even K = 1
    scores more."""
    within = np.flatnonzero(curve.pairs <= pairs)
    return int(within[-1]) if len(within) else None


def best(curve: KCurve, k: int) -> int:
    """The place of the K with the highest recall@k; of several the smallest."""
    return int(macro(curve.recall[k]).argmax())


def enough(curve: KCurve) -> int | None:
    """The place of the smallest K whose recall@k is, for every k, within the 95 % interval of the
    highest over all K: what lies there, these queries cannot tell from it. None without recalls.

    An interval of one K's recall, and not of the difference of two: it says what another sample of
    queries could give, and is wider than a paired comparison of the two would be.
    """
    if not curve.recall:
        return None
    within = [macro(of_k) >= _low(curve, k) for k, of_k in curve.recall.items()]
    return _first(np.all(within, axis=0))


def macro(values: Float[np.ndarray, "K category"]) -> Float[np.ndarray, " K"]:
    """The mean over the categories."""
    return values.mean(axis=1).round(DIGITS)


def _low(curve: KCurve, k: int) -> float:
    """Of the interval of the highest recall@k; hits are whole numbers again."""
    hits = np.rint(curve.recall[k][best(curve, k)] * curve.n).astype(int)
    return mean_interval(
        [np.repeat([1.0, 0.0], [hit, n - hit]) for hit, n in zip(hits, curve.n, strict=True)]
    ).low


def _first(holds: np.ndarray) -> int | None:
    """Never the place of the first of none, which ``argmax`` alone would give."""
    return int(holds.argmax()) if holds.any() else None
