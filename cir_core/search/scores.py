"""Stage 1's score of a pair: its definition, and fast products that are sure to be near it."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from cir_core.errors import NonFiniteError
from cir_core.ordering import require_finite
from cir_core.search.candidates import NONE_REMOVED

PAIRS_AT_ONCE = 256
"""Pairs whose vectors are gathered together: 1 MiB of fp64 at width 256, within the caches."""

QUERIES_AT_ONCE = 1024
IMAGES_AT_ONCE = 2048
"""A block of products is 8 MiB: large enough for the matrix product to run at full speed, small
enough to be read again from the cache."""

UNIT = 2.0**-24
"""Half the distance between fp32 numbers around 1: what one rounding can do to 1."""


class Gallery:
    """The vectors that are searched. Raises NonFiniteError when one is not finite."""

    def __init__(self, vectors: Float[np.ndarray, "image embedding"]) -> None:
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.longest = float(_lengths(self.vectors, "gallery embeddings").max(initial=0))

    def __len__(self) -> int:
        return len(self.vectors)


def pair_scores(
    queries: Float[np.ndarray, "query embedding"],
    gallery: Float[np.ndarray, "image embedding"],
    query_rows: Int[np.ndarray, " pair"],
    image_rows: Int[np.ndarray, " pair"],
) -> Float[np.ndarray, " pair"]:
    """The one stage 1 score of a pair: the inner product, summed in fp64, rounded to fp32.

    Each sum runs over its own two vectors, never over a column of a matrix product, which rounds
    differently from column to column: equal images score the same wherever they stand.
    """
    scores = np.empty(len(query_rows), dtype=np.float32)
    for start in range(0, len(scores), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        scores[some] = np.vecdot(
            queries.take(query_rows[some], axis=0).astype(np.float64),
            gallery.take(image_rows[some], axis=0).astype(np.float64),
        )
    return scores


def near_scores(
    queries: Float[np.ndarray, "query embedding"],
    gallery: Gallery,
    removed: Int[np.ndarray, " query"],
) -> Iterator[tuple[int, Float[np.ndarray, "query image"]]]:
    """Fp32 products of all queries with one block of the gallery after another, each with its first
    gallery row; -inf where a row is removed. A block's memory is used again for the next.

    Each lies within ``error_bound`` of the pair's score.
    """
    memory = np.empty(len(queries) * min(IMAGES_AT_ONCE, len(gallery)), dtype=np.float32)
    asking = np.flatnonzero(removed != NONE_REMOVED)
    for start in range(0, len(gallery), IMAGES_AT_ONCE):
        images = gallery.vectors[start : start + IMAGES_AT_ONCE]
        scores = memory[: len(queries) * len(images)].reshape(len(queries), len(images))
        np.matmul(queries, images.T, out=scores)
        places = removed[asking] - start
        inside = (places >= 0) & (places < len(images))
        scores[asking[inside], places[inside]] = -np.inf
        yield start, scores


def error_bound(
    queries: Float[np.ndarray, "query embedding"], gallery: Gallery
) -> Float[np.ndarray, " query"]:
    """How far a near score can be from the pair's score, per query, in fp64.

    A sum of n products, in any order, fused or not, is off by at most n u / (1 - n u) times the
    product of the two lengths (Higham, Accuracy and Stability, 3.1), u = 2^-24. Four more u cover
    the roundings of the score and of a threshold to fp32, a tenth the denominator up to a million
    dimensions, the last term products that underflow. Raises NonFiniteError when a query is not
    finite, or so long that scores could overflow.
    """
    width = queries.shape[1]
    products = _lengths(queries, "query embeddings") * gallery.longest
    if products.max(initial=0) > np.finfo(np.float32).max / 2:
        raise NonFiniteError(
            "scores could overflow", cause="embeddings are not of unit length", remedy="scale them"
        )
    return 1.1 * (width + 4) * UNIT * products + width * 2.0**-126


def _lengths(vectors: Float[np.ndarray, "vector width"], what: str) -> Float[np.ndarray, " vector"]:
    lengths = np.empty(len(vectors))
    for start in range(0, len(vectors), PAIRS_AT_ONCE):
        some = vectors[start : start + PAIRS_AT_ONCE].astype(np.float64)
        lengths[start : start + PAIRS_AT_ONCE] = np.sqrt(np.vecdot(some, some))
    require_finite(lengths, what)
    return lengths
