"""FAISS's indexes, held to our scores, our order and our ties."""

from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Int

from cir_core.errors import UsageError
from cir_core.search.candidates import Candidates, best_of, joined
from cir_core.search.choice import IndexChoice, count_lists
from cir_core.search.scores import Gallery, error_bound, pair_scores

SLACK = 8
"""Asked for beyond k: one for a removed image, the others for near ties at the cut, which FAISS
decides by its own rounding, and exact ties by the higher row."""

QUERIES_AT_ONCE = 4096

GPU_MOST = 2048
"""Neighbours a query that FAISS's GPU kernels can return."""

ROUNDS, MOST_TRAINING_IMAGES = 10, 64
"""Of learning the lists, and per list. FAISS's own 25 and 256 take ten times as long, at a million
images longer than an exact search of tens of thousands of queries, and recall hardly gains."""

PROBED_SHARE = 32
"""One list in so many is looked through by default, and LEAST_PROBED or more."""

LEAST_PROBED = 8


class FaissIndex:
    """A copy of the gallery inside FAISS. What it finds is scored again by definition.

    ``flat`` and ``gpu`` find what an exact search finds, but for more than SLACK ties at the cut,
    of which FAISS keeps any. ``ivf`` finds what lies in the lists that it probes, which can be
    fewer than k images; its clustering may differ from machine to machine. Raises UsageError when
    the gallery is too small for the lists, or k too large for a GPU.
    """

    def __init__(self, gallery: Gallery, choice: IndexChoice) -> None:
        self._gallery, self._choice = gallery, choice
        self._index = _built(gallery.vectors, choice)

    def search(
        self,
        queries: Float[np.ndarray, "query embedding"],
        *,
        k: int,
        removed: Int[np.ndarray, " query"],
    ) -> Candidates:
        """See ``VectorIndex``."""
        wanted = min(k + SLACK, max(1, len(self._gallery)))
        if self._choice.kind == "gpu" and wanted > GPU_MOST:
            raise UsageError(
                f"FAISS on a GPU finds {GPU_MOST - SLACK} candidates at most, and K is {k}",
                remedy="pass a smaller K, or another index",
            )
        parts = []
        for start in range(0, max(1, len(queries)), QUERIES_AT_ONCE):
            some = slice(start, start + QUERIES_AT_ONCE)
            found = self._search_some(queries[some], removed[some], k=k, wanted=wanted)
            parts.append(found.shifted(start))
        return joined(parts)

    def _search_some(
        self, queries: np.ndarray, removed: np.ndarray, *, k: int, wanted: int
    ) -> Candidates:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        error_bound(queries, self._gallery)  # refuses what FAISS would answer with nothing
        _, rows = self._index.search(queries, wanted)
        usable = (rows >= 0) & (rows != removed[:, None])  # -1: the index found no more
        own, images = np.nonzero(usable)[0], rows[usable]
        scores = pair_scores(queries, self._gallery.vectors, own, images)
        return best_of(own, images, scores, k=k)


def _built(vectors: Float[np.ndarray, "image embedding"], choice: IndexChoice) -> Any:
    count, width = vectors.shape
    lists = count_lists(count, choice) if choice.kind == "ivf" else 1
    recipe = f"IVF{lists},Flat" if lists > 1 else "Flat"
    index: Any = faiss.index_factory(width, recipe, faiss.METRIC_INNER_PRODUCT)
    if choice.kind == "gpu":
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    if lists > 1:
        index.cp.niter, index.cp.max_points_per_centroid = ROUNDS, MOST_TRAINING_IMAGES
        index.nprobe = choice.probes or max(LEAST_PROBED, lists // PROBED_SHARE)
    index.train(vectors)
    index.add(vectors)
    return index
