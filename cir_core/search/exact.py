"""Exact search: every query against the whole gallery, in blocks, with bounded memory.

Fp32 products choose, fp64 scores decide: whatever could be among the k best, given the products'
error bound, is scored by definition in the end. So the answer is that of scoring every pair.
"""

import numpy as np
from jaxtyping import Float, Int

from cir_core.search.blocks import map_blocks
from cir_core.search.candidates import Candidates, best_of, joined
from cir_core.search.scores import (
    IMAGES_AT_ONCE,
    QUERIES_AT_ONCE,
    Gallery,
    error_bound,
    near_scores,
    pair_scores,
)

KEPT = 2
"""Times k: so many images a query are held before they are cut back to about k."""

PLACES = 2**22
"""Images held for all queries of a block, at 8 bytes each: 32 MiB. A large K makes small blocks."""


class ExactIndex:
    """The default index: the k best by definition, the same whatever the blocks and threads."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    def search(
        self,
        queries: Float[np.ndarray, "query embedding"],
        *,
        k: int,
        removed: Int[np.ndarray, " query"],
    ) -> Candidates:
        """See ``VectorIndex``."""
        k = max(1, min(k, len(self._gallery)))
        most = min(QUERIES_AT_ONCE, PLACES // (KEPT * k + IMAGES_AT_ONCE))
        parts = map_blocks(
            lambda some: self._search_some(queries[some], k, removed[some]).shifted(some.start),
            len(queries),
            most=most,
        )
        return joined(parts)

    def _search_some(self, queries: np.ndarray, k: int, removed: np.ndarray) -> Candidates:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        held = _Held(queries, self._gallery, k)
        for start, scores in near_scores(queries, self._gallery, removed):
            held.add(start, scores)
        return held.best()


class _Held:
    """Per query, the images seen so far that can still be among its k best, with near scores.

    What lies below a query's floor cannot: k images are known whose scores are higher. With the
    error bound e and k near scores of t or more, these k have scores of t - e or more; an image
    whose near score is below t - 2 e has a lower one.
    """

    def __init__(self, queries: np.ndarray, gallery: Gallery, k: int) -> None:
        self._queries, self._gallery, self._k = queries, gallery, k
        self._error = error_bound(queries, gallery)
        shape = len(queries), KEPT * k + min(IMAGES_AT_ONCE, len(gallery))
        self._images = np.zeros(shape, dtype=np.int32)
        self._scores = np.full(shape, -np.inf, dtype=np.float32)
        self._counts = np.zeros(len(queries), dtype=np.int64)
        self._mask = np.empty(len(queries) * min(IMAGES_AT_ONCE, len(gallery)), dtype=bool)
        self._floor = np.full(len(queries), np.finfo(np.float32).min)

    def add(self, start: int, scores: Float[np.ndarray, "query image"]) -> None:
        """See a block of the gallery that begins at row ``start``; there is room for all of it."""
        if not start:
            self._raise_floor(scores)
        candidates = self._mask[: scores.size].reshape(scores.shape)
        np.greater_equal(scores, self._floor[:, None], out=candidates)
        chosen = np.flatnonzero(candidates)
        queries, places = np.divmod(chosen, scores.shape[1])
        self._append(queries, places + start, scores.ravel().take(chosen))
        if self._counts.max(initial=0) > KEPT * self._k:
            self._cut()

    def best(self) -> Candidates:
        """The k best by definition."""
        queries, places = self._above_floor()
        images = self._images.take(places).astype(np.int64)
        scores = pair_scores(self._queries, self._gallery.vectors, queries, images)
        return best_of(queries, images, scores, k=self._k)

    def _cut(self) -> None:
        """Drop what fell below the floor; where near ties leave too many, decide by definition."""
        queries, places = self._above_floor()
        self._replace(queries, self._images.take(places), self._scores.take(places))
        if self._counts.max() > KEPT * self._k:
            best = self.best()
            self._replace(best.queries, best.images, best.scores)

    def _above_floor(self) -> tuple[np.ndarray, np.ndarray]:
        """Queries, ascending, and places (in the whole matrix, row by row) of the held images that
        can still be among the best; an empty place holds -inf, which is below any floor."""
        held = self._scores[:, : self._counts.max(initial=0)]
        self._raise_floor(held)
        chosen = np.flatnonzero(held >= self._floor[:, None])
        queries, columns = np.divmod(chosen, max(1, held.shape[1]))
        return queries, queries * self._scores.shape[1] + columns

    def _raise_floor(self, scores: Float[np.ndarray, "query image"]) -> None:
        beyond = scores.shape[1] - self._k
        if beyond >= 0:
            kth = np.partition(scores, beyond, axis=1)[:, beyond]
            self._floor = np.maximum(self._floor, kth - 2 * self._error).astype(np.float32)

    def _replace(self, queries: np.ndarray, images: np.ndarray, scores: np.ndarray) -> None:
        self._counts[:] = 0
        self._scores[:] = -np.inf
        self._append(queries, images, scores)

    def _append(self, queries: np.ndarray, images: np.ndarray, scores: np.ndarray) -> None:
        """Queries ascending."""
        new = np.bincount(queries, minlength=len(self._counts))
        starts = np.cumsum(new) - new
        first = np.arange(len(new)) * self._scores.shape[1] + self._counts
        places = np.arange(len(queries)) + np.repeat(first - starts, new)
        self._images.put(places, images)
        self._scores.put(places, scores)
        self._counts += new
