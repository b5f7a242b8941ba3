"""Where stage 1 puts each target in the whole gallery, also beyond the K candidates."""

import numpy as np
from jaxtyping import Float, Int

from cir_core.search.blocks import map_blocks
from cir_core.search.candidates import Candidates
from cir_core.search.scores import (
    QUERIES_AT_ONCE,
    Gallery,
    error_bound,
    near_scores,
    pair_scores,
)

NOT_FOUND = 0
"""In place of a rank, which is 1 or more."""


def target_ranks(
    queries: Float[np.ndarray, "query embedding"],
    gallery: Gallery,
    found: Candidates,
    *,
    removed: Int[np.ndarray, " query"],
    target_queries: Int[np.ndarray, " target"],
    target_images: Int[np.ndarray, " target"],
) -> Int[np.ndarray, " target"]:
    """The 1-based stage 1 rank of each target, given by its query's row and its gallery row.

    A target among the candidates has its rank there. Any other is counted: one more than the
    images, less the removed one, that score higher, or equally at a lower gallery row. After an
    exact search that is its rank in the whole gallery. A target that an approximate index missed
    comes after the candidates that this index found, however good its score: stage 1 did not hand
    it over, and no metric may say that it did.
    """
    ranks = _places(found, target_queries, target_images, images=len(gallery))
    missed = np.flatnonzero(ranks == NOT_FOUND)
    handed_over = np.bincount(found.queries, minlength=len(queries))

    asked, images = target_queries[missed], target_images[missed]
    own = pair_scores(queries, gallery.vectors, asked, images)
    places = places_of(queries[asked], gallery, scores=own, rows=images, removed=removed[asked])
    ranks[missed] = np.maximum(places, 1 + handed_over[asked])
    return ranks


def places_of(
    queries: Float[np.ndarray, "query embedding"],
    gallery: Gallery,
    *,
    scores: Float[np.ndarray, " query"],
    rows: Int[np.ndarray, " query"],
    removed: Int[np.ndarray, " query"],
) -> Int[np.ndarray, " query"]:
    """The 1-based rank, for each query, of what has this score by ``pair_scores`` and stands in the
    gallery at this row: one more than the images, less the removed one, that score higher, or
    equally at a lower row. What is no member may stand at the end, row ``len(gallery)``."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)

    def count(some: slice) -> Int[np.ndarray, " query"]:
        return _count_better(queries[some], gallery, scores[some], rows[some], removed[some])

    return 1 + np.concatenate(map_blocks(count, len(queries), most=QUERIES_AT_ONCE))


def _places(
    found: Candidates,
    queries: Int[np.ndarray, " pair"],
    rows: Int[np.ndarray, " pair"],
    images: int,
) -> Int[np.ndarray, " pair"]:
    """The rank of each pair among the candidates, or NOT_FOUND."""
    candidates, wanted = found.queries * images + found.images, queries * images + rows
    order = np.argsort(candidates)
    place = np.searchsorted(candidates, wanted, sorter=order)
    padded = np.append(order, -1)[place]  # beyond the last: no candidate
    ranks = np.append(found.ranks, NOT_FOUND)[padded]
    return np.where(np.append(candidates, -1)[padded] == wanted, ranks, NOT_FOUND)


def _count_better(
    queries: Float[np.ndarray, "target embedding"],
    gallery: Gallery,
    own: Float[np.ndarray, " target"],
    rows: Int[np.ndarray, " target"],
    removed: Int[np.ndarray, " target"],
) -> Int[np.ndarray, " target"]:
    """Images before each target: those surely above it, and those that are so by definition."""
    error = error_bound(queries, gallery)
    high, low = (own + error).astype(np.float32), (own - error).astype(np.float32)
    counts = np.zeros(len(queries), dtype=np.int64)
    for start, scores in near_scores(queries, gallery, removed):
        above = scores > high[:, None]
        counts += np.bitwise_count(np.packbits(above, axis=1)).sum(axis=1, dtype=np.int64)
        unsure = np.flatnonzero(above ^ (scores >= low[:, None]))
        asked, images = np.divmod(unsure, scores.shape[1])
        images += start
        exact = pair_scores(queries, gallery.vectors, asked, images)
        tied_before = (exact == own[asked]) & (images < rows[asked])
        counts += np.bincount(asked[(exact > own[asked]) | tied_before], minlength=len(counts))
    return counts
