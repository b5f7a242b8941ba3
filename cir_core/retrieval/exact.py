"""Exact cosine search: every query against the whole gallery, in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cir_core.ordering import best_first, require_finite

QUERY_BLOCK = 128
"""Queries per matrix product: bounds memory to 128 scores (12 bytes each, see ``_products``) an
image and block."""


@dataclass(frozen=True)
class Retrieved:
    """One query's candidates, best first, as gallery rows; and where its targets stand."""

    rows: Int[np.ndarray, " k"]
    scores: Float[np.ndarray, " k"]
    target_ranks: tuple[int, ...]


def search(
    queries: Float[np.ndarray, "query embedding"],
    gallery: Float[np.ndarray, "image embedding"],
    *,
    k: int,
    removed: list[int | None],
    targets: list[tuple[int, ...]],
) -> Iterator[Retrieved]:
    """The k best gallery rows of each query, in query order, by inner product of unit vectors.

    ``removed`` is a gallery row that may not answer a query (its reference, under protocols that
    remove it). ``targets`` are gallery rows whose 1-based rank in the whole gallery is wanted.
    Ties: lower gallery row first, also at the cut. When fewer than k rows are left, all of them
    are returned. Raises NonFiniteError when an embedding is not finite.

    """
    require_finite(queries, "query embeddings")
    require_finite(gallery, "gallery embeddings")
    columns = gallery.T.astype(np.float64)
    for start in range(0, len(queries), QUERY_BLOCK):
        products = _products(queries[start : start + QUERY_BLOCK], columns)
        for offset, scores in enumerate(products):
            yield _search_one(scores, k, removed[start + offset], targets[start + offset])


def similarity(
    queries: Float[np.ndarray, "query embedding"], images: Float[np.ndarray, "image embedding"]
) -> Float[np.ndarray, "query image"]:
    """Inner products: the one stage 1 score of a pair, whatever else is computed beside it."""
    return _products(queries, images.T.astype(np.float64))


def _products(
    queries: Float[np.ndarray, "query embedding"], columns: Float[np.ndarray, "embedding image"]
) -> Float[np.ndarray, "query image"]:
    """Summed in fp64, then rounded: in fp32 the same two vectors give different last bits from
    column to column and block to block, so that equal images would not tie."""
    return (queries.astype(np.float64) @ columns).astype(np.float32)


def _search_one(
    scores: Float[np.ndarray, " image"], k: int, removed: int | None, targets: tuple[int, ...]
) -> Retrieved:
    rows = np.arange(len(scores))
    if removed is not None:
        rows = np.delete(rows, removed)
    ranks = tuple(_rank(scores, target, rows) for target in targets)
    k = min(k, len(rows))
    if k == 0:
        return Retrieved(rows=rows[:0], scores=scores[:0], target_ranks=ranks)
    # everything at least as good as the k-th, so that ties at the cut are seen and ordered
    cut = np.partition(scores[rows], len(rows) - k)[len(rows) - k]
    rows = rows[scores[rows] >= cut]
    rows = rows[best_first(scores[rows], rows)[:k]]
    return Retrieved(rows=rows, scores=scores[rows], target_ranks=ranks)


def _rank(scores: Float[np.ndarray, " image"], target: int, rows: Int[np.ndarray, " row"]) -> int:
    others, own = scores[rows], scores[target]
    return 1 + int(((others > own) | ((others == own) & (rows < target))).sum())
