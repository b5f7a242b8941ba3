"""Candidates by their scores: all images within a reach of a query's best one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cir_core.search.candidates import Candidates, VectorIndex, joined

FIRST_K = 64
"""Neighbours that are asked for at first; twice as many for the queries that need more."""

PAIRS_AT_ONCE = 2**22
"""Neighbours that are held at once, at 28 bytes each: 117 MB beside the candidates."""


def search_within(
    index: VectorIndex,
    queries: Float[np.ndarray, "query embedding"],
    *,
    reach: Float[np.ndarray, " query"],
    removed: Int[np.ndarray, " query"],
    images: int,
) -> Candidates:
    """The gallery rows whose score is the query's best score less its ``reach``, or more; the
    differences of scores are taken in fp64, where they are exact. So a query has one candidate at
    least, if its gallery of so many ``images`` has any but the removed one.

    The ``index`` is exact: of the images that it did not look at, none could be told to lie beyond.
    Raises NonFiniteError when a query is not finite.
    """
    rows, k, parts = np.arange(len(queries)), FIRST_K, []
    while len(rows):
        unfinished = []
        step = max(1, PAIRS_AT_ONCE // k)
        for some in (rows[start : start + step] for start in range(0, len(rows), step)):
            found = index.search(queries[some], k=k, removed=removed[some])
            told = _Neighbours(found, len(some))
            done = told.ends_within(reach[some]) | (k >= images)
            inside = told.inside(reach[some]) & done[found.queries]
            parts.append(_those(found, inside, some))
            unfinished.append(some[~done])
        rows, k = np.concatenate(unfinished), 2 * k
    return _by_query(joined(parts)) if parts else index.search(queries, k=1, removed=removed)


@dataclass(frozen=True)
class _Neighbours:
    """Of so many queries; one with none has nothing below its best."""

    found: Candidates
    queries: int

    def below(self) -> Float[np.ndarray, " candidate"]:
        """By how much each scores lower than its query's best."""
        best = np.zeros(self.queries)
        first = self.found.ranks == 1
        best[self.found.queries[first]] = self.found.scores[first]
        return best[self.found.queries] - self.found.scores.astype(np.float64)

    def inside(self, reach: Float[np.ndarray, " query"]) -> Bool[np.ndarray, " candidate"]:
        return self.below() <= reach[self.found.queries]

    def ends_within(self, reach: Float[np.ndarray, " query"]) -> Bool[np.ndarray, " query"]:
        """Whether one of a query's neighbours lies beyond its reach: all that follow do."""
        beyond = np.zeros(self.queries, dtype=bool)
        beyond[self.found.queries[~self.inside(reach)]] = True
        return beyond


def _those(found: Candidates, kept: Bool[np.ndarray, " candidate"], rows: np.ndarray) -> Candidates:
    return Candidates(
        rows[found.queries[kept]], found.images[kept], found.ranks[kept], found.scores[kept]
    )


def _by_query(found: Candidates) -> Candidates:
    order = np.argsort(found.queries, kind="stable")
    return Candidates(
        found.queries[order], found.images[order], found.ranks[order], found.scores[order]
    )
