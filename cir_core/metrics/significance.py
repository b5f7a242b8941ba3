"""95 % intervals that stay honest at the edges: nothing missed, nothing moved, a single query."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

PSEUDO_GAINS = 2
"""One query that gains everything and one that loses everything: Bonett and Price's adjustment."""

BORROWED = Z_95**2
"""Queries by which a group's variance is drawn to that of all, as many as Wilson's form adds: a few
queries that are all hits do not show that nothing can be missed."""

Groups = Sequence[Float[np.ndarray, " query"]]
"""The values of each category's queries; at least one category, none of them empty."""


class Interval(NamedTuple):
    """A mean and where the true one lies, but for one time in twenty. Never of width 0."""

    value: float
    low: float
    high: float


def mean_interval(groups: Groups) -> Interval:
    """The mean of the groups' means, of values in [0, 1], with Wilson's score interval.

    Of the hits and misses of one group it is Wilson's interval of a share. Means of other values,
    and of several groups, have their own variance; the interval is that of a share of as many
    queries as give a share this variance. Within [0, 1].
    """
    value = _mean(groups)
    of_a_share = value * (1 - value)
    size = _size(groups)
    if of_a_share > 0:
        size = of_a_share / _variance(groups, of_a_share)
    middle = (size * value + Z_95**2 / 2) / (size + Z_95**2)
    margin = Z_95 / (size + Z_95**2) * np.sqrt(size * of_a_share + Z_95**2 / 4)
    return _around(value, middle, margin, least=0.0)


def gain_interval(groups: Groups) -> Interval:
    """The mean of the groups' means, of paired differences in [-1, 1], with Bonett and Price's
    adjusted Wald interval (J. Educ. Behav. Stat. 37, 2012, 479-488), which counts
    ``PSEUDO_GAINS`` beside the queries.

    Several groups count as so many queries as would have the variance of their mean, were all
    categories alike. Within [-1, 1].
    """
    value, size = _mean(groups), _size(groups)
    spread = float(np.mean([np.mean((group - value) ** 2) for group in groups]))
    counted = size + PSEUDO_GAINS
    middle = size * value / counted
    square = size * (size * _variance(groups, spread) + value**2) + PSEUDO_GAINS
    margin = Z_95 * np.sqrt((square / counted - middle**2) / counted)
    return _around(value, middle, margin, least=-1.0)


def share_interval(hits: int, n: int) -> Interval:
    """``mean_interval`` of so many hits among ``n`` queries."""
    return mean_interval([np.repeat([1.0, 0.0], [hits, n - hits])])


def wins_interval(wins: int, losses: int, n: int) -> Interval:
    """``gain_interval`` of so many hits won, and lost, among ``n`` queries."""
    return gain_interval([np.repeat([1.0, -1.0, 0.0], [wins, losses, n - wins - losses])])


def difference_interval(one: Interval, other: Interval) -> Interval:
    """How much more the first is, of two means of different queries, by their own intervals:
    Newcombe's square-and-add form (Stat. Med. 17, 1998, 873-890, method 10). Within [-1, 1] for
    means within [0, 1]."""
    value = one.value - other.value
    low = value - np.hypot(one.value - one.low, other.high - other.value)
    high = value + np.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, float(low), float(high))


def _mean(groups: Groups) -> float:
    return float(np.mean([group.mean() for group in groups]))


def _size(groups: Groups) -> float:
    """The queries whose plain mean varies as the mean of the groups' means does, where all values
    vary alike; of one group, its size."""
    return len(groups) ** 2 / sum(1 / len(group) for group in groups)


def _variance(groups: Groups, of_any: float) -> float:
    """Of the mean of the groups' means. A group's own variance is known from its queries but one, a
    single query showing none; beside it ``of_any`` query counts for ``BORROWED``."""
    own = [
        ((len(group) - 1) * group.var() + BORROWED * of_any) / (len(group) - 1 + BORROWED)
        for group in groups
    ]
    means = [variance / len(group) for variance, group in zip(own, groups, strict=True)]
    return float(sum(means)) / len(groups) ** 2


def _around(value: float, middle: float, margin: float, *, least: float) -> Interval:
    """Both forms hold the mean itself; rounding shall not put it outside."""
    low, high = max(least, middle - margin), min(1.0, middle + margin)
    return Interval(value, min(value, float(low)), max(value, float(high)))
