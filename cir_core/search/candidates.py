"""What every index answers: candidates as columns, in the one order of scores."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from cir_core.ordering import grouped_best_first

NONE_REMOVED = -1
"""In place of a gallery row: every row may answer this query."""


@dataclass(frozen=True)
class Candidates:
    """Columns of equal length: query after query, and within one the best first.

    ``queries`` and ``images`` are rows of the two matrices, ``ranks`` are 1-based, ``scores`` are
    those of ``pair_scores``.
    """

    queries: Int[np.ndarray, " candidate"]
    images: Int[np.ndarray, " candidate"]
    ranks: Int[np.ndarray, " candidate"]
    scores: Float[np.ndarray, " candidate"]

    def shifted(self, by: int) -> "Candidates":
        """The same of queries that stand ``by`` rows later."""
        return replace(self, queries=self.queries + by)


class VectorIndex(Protocol):
    """Finds candidates in the gallery that it was made over."""

    def search(
        self,
        queries: Float[np.ndarray, "query embedding"],
        *,
        k: int,
        removed: Int[np.ndarray, " query"],
    ) -> Candidates:
        """The k best gallery rows of each query by ``pair_scores``; ties: lower gallery row first.

        ``removed`` is a gallery row that may not answer a query (its reference, under protocols
        that remove it) or NONE_REMOVED. Where fewer than k rows are left, or found, there are
        fewer. No queries or no gallery: no candidates. Raises NonFiniteError when a query is not
        finite.
        """
        ...


def best_of(
    queries: Int[np.ndarray, " pair"],
    images: Int[np.ndarray, " pair"],
    scores: Float[np.ndarray, " pair"],
    *,
    k: int,
) -> Candidates:
    """Scored pairs, in any order, as candidates: the k best of each query."""
    order, ranks = grouped_best_first(queries, scores, images)
    order, ranks = order[ranks <= k], ranks[ranks <= k]
    return Candidates(queries[order], images[order], ranks, scores[order])


def joined(parts: list[Candidates]) -> Candidates:
    """The candidates of consecutive queries as one; at least one part."""
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Candidates(*map(np.concatenate, columns))
