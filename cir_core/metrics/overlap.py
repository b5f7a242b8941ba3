"""How alike two rankings are, most of all at their tops: rank-biased overlap."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

PERSISTENCE = 0.9
"""The chance that a reader goes on to the next rank: ten ranks on the average, and 86 % of the
weight on the first ten."""


ITEM_BITS = 32
"""Of a place's key, below its query's number."""


@dataclass(frozen=True)
class Lists:
    """The rankings of several queries: a row per place. ``query`` are their numbers, from 0;
    ``item`` names the image, by the same number below 2^32 in all that are compared; ``rank``
    begins at 1 and has no gaps. Rows in any order; a query may have none."""

    query: Int[np.ndarray, " place"]
    item: Int[np.ndarray, " place"]
    rank: Int[np.ndarray, " place"]

    @cached_property
    def by_key(self) -> tuple[Int[np.ndarray, " place"], Int[np.ndarray, " place"]]:
        """A number for each query and item, sorted, and their ranks."""
        keys = (self.query.astype(np.int64) << ITEM_BITS) | self.item.astype(np.int64)
        order = np.argsort(keys)
        return keys[order], self.rank[order]


def rank_biased_overlap(
    first: Lists, second: Lists, queries: int, *, p: float = PERSISTENCE
) -> Float[np.ndarray, " query"]:
    """RBO_ext of each query's two lists, which may have different lengths (Webber, Moffat, Zobel,
    ACM TOIS 28, 2010, equation 32): the overlap at each depth, weighed by p to the depth, going on
    beyond the ends of the lists as it was there. 1 of equal lists, 0 of disjoint ones; NaN where
    either is empty.

    Lists are total orders. Where scores tie, gallery order has decided, in both alike: ties are not
    told from differences (Webber's treatment, RBO^w, and Corsi and Urbano's, SIGIR 2024, would
    need the scores). ``p`` is in (0, 1).
    """
    one, other = (np.bincount(each.query, minlength=queries) for each in (first, second))
    short, long = np.minimum(one, other), np.maximum(one, other)
    query, depth = _shared(first, second)
    depths = np.arange(1, 1 + int(long.max(initial=0)))
    power = np.append(0.0, np.cumsum(p**depths))  # the sum of p^d over d = 1..t, at t
    weight = np.append(0.0, np.cumsum(p**depths / depths))  # of p^d / d
    # An item that both have at depth m counts in X_d of each d from m to the longer list's end.
    counted = np.bincount(query, weights=weight[long[query]] - weight[depth - 1], minlength=queries)
    at_end = np.bincount(query, minlength=queries)
    at_short = np.bincount(query, weights=depth <= short[query], minlength=queries)
    with np.errstate(divide="ignore", invalid="ignore"):
        agreed = at_short / short
        beyond = agreed * (power[long] - power[short] - short * (weight[long] - weight[short]))
        going_on = (at_end - at_short) / long + agreed
        found = (1 - p) / p * (counted + beyond) + going_on * p ** long.astype(float)
    return np.where(short > 0, found, np.nan)


def _shared(
    first: Lists, second: Lists
) -> tuple[Int[np.ndarray, " item"], Int[np.ndarray, " item"]]:
    """Of each item that both lists of a query have: the query, and the depth from which on."""
    (mine, my_rank), (theirs, their_rank) = first.by_key, second.by_key
    place = np.searchsorted(theirs, mine)
    place[place == len(theirs)] = 0
    both = theirs[place] == mine if len(theirs) else np.zeros(len(mine), dtype=bool)
    depth = np.maximum(my_rank[both], their_rank[place[both]])
    return mine[both] >> ITEM_BITS, depth
