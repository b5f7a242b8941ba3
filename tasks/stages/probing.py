"""What is asked of queries beside the run: with one half of them, of their references, and of what
stands next to their targets."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import torch

from cir_core.metrics.probing import read_linearly
from cir_core.ordering import require_finite
from cir_core.ports import ReadsTexts
from cir_core.search.candidates import NONE_REMOVED
from cir_core.search.exact import ExactIndex
from cir_core.search.ranks import places_of
from cir_core.search.scores import pair_scores
from storage import z_t
from storage.tables import rows_of
from storage.views import Fused
from tasks.feed.pictures import Distinct
from tasks.stages.questions import Questions
from tasks.stages.searching import Search
from tasks.stages.vectors import Vectors

NEVER = np.iinfo(np.int32).max
"""In place of a rank, where there is none."""


# --- what to ask with


@torch.inference_mode()
def text_vectors(model: ReadsTexts, questions: Questions, batch: int) -> Vectors | None:
    """Of each query by its text alone; of one that is asked both ways the mean, of unit length.
    None where nothing is asked."""
    if not len(questions):
        return None
    texts = sorted(
        {tuple(ids) for ways in questions.texts for ids in ways}, key=lambda ids: (len(ids), ids)
    )
    vectors: dict[tuple[int, ...], np.ndarray] = {}
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        found = model.embed_texts(some).float().cpu().numpy()
        require_finite(found, "text embeddings")
        vectors.update(zip(some, found, strict=True))
    each = [np.mean([vectors[tuple(ids)] for ids in ways], axis=0) for ways in questions.texts]
    counts = [len(ids) for ids in questions.query_ids]
    return _vectors(list(chain.from_iterable(questions.query_ids)), np.repeat(each, counts, axis=0))


def reference_vectors(queries: pa.Table, images: Vectors) -> Vectors:
    """Of each query by its reference's own embedding, where that has one."""
    there = images.with_one(queries, "reference_id")
    return Vectors(there["query_id"], images.of(there["reference_id"]))


def mean_states(fused: Fused) -> Vectors | None:
    """z_t of each query, averaged over its tokens (and both ways of asking); None where stage 1 has
    none."""
    table = fused.read("queries", ["query_id", "length", "z_t"])
    means = z_t.means(table["z_t"], table["length"].to_pylist())
    if not means.size:
        return None
    ids = pa.chunked_array([table["query_id"].unique()])
    of_row = rows_of(table["query_id"], ids)
    summed = np.zeros((len(ids), means.shape[1]))
    np.add.at(summed, of_row, means)
    return Vectors(ids, summed / np.bincount(of_row)[:, None])


def read_references(
    features: Vectors, queries: pa.Table, images: Vectors, pictures: Distinct
) -> Vectors | None:
    """What a linear map reads of each query's reference from its features; learnt from queries with
    other references (``read_linearly``)."""
    asked = features.with_one(images.with_one(queries, "reference_id"), "query_id")
    references = asked["reference_id"]
    x, y = features.of(asked["query_id"]), images.of(references)
    found = read_linearly(x, y, pictures.of(references))
    return None if found is None else _vectors(asked["query_id"].to_pylist(), found)


def _vectors(ids: Sequence[str], matrix: np.ndarray) -> Vectors:
    """Of unit length."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit = matrix / np.maximum(lengths, np.finfo(np.float64).tiny)
    return Vectors(pa.chunked_array([pa.array(ids, pa.string())]), unit.astype(np.float32))


# --- ranks


def target_ranks(search: Search, asked: Vectors | None, removed: np.ndarray) -> pa.Array:
    """Of each query's best target, when the gallery is asked with other vectors; NULL without
    target, or vector."""
    queries, images = search.pairs("targets")
    mine = _rows(search, asked)
    known = mine[queries] >= 0
    queries, images = queries[known], images[known]
    best = np.full(len(search.queries), NEVER)
    if asked is not None and len(queries):
        vectors = asked.matrix[mine[queries]]
        own = pair_scores(vectors, search.gallery.vectors, np.arange(len(vectors)), images)
        ranks = places_of(
            vectors, search.gallery, scores=own, rows=images, removed=removed[queries]
        )
        np.minimum.at(best, queries, ranks)
    return _nullable(best)


def reference_ranks(
    search: Search, asked: Vectors | None, images: Vectors, pictures: Distinct
) -> pa.Array:
    """Of each query's reference in the gallery, of which nothing is removed; one that is no member
    comes to its end. A copy of the reference is the reference."""
    mine, references = _rows(search, asked), search.queries["reference_id"]
    own_rows = rows_of(references, images.ids)
    known = np.flatnonzero((mine >= 0) & (own_rows >= 0))
    ranks = np.full(len(search.queries), NEVER)
    if asked is not None and len(known):
        vectors, own = asked.matrix[mine[known]], images.matrix[own_rows[known]]
        each = np.arange(len(known))
        ranks[known] = places_of(
            vectors,
            search.gallery,
            scores=pair_scores(vectors, own, each, each),
            rows=_members(search, pictures)[pictures.of(references)[known]],
            removed=np.full(len(known), NONE_REMOVED),
        )
    return _nullable(ranks)


def _members(search: Search, pictures: Distinct) -> np.ndarray:
    """Of each picture, the first row of the gallery that has it; its end where none has."""
    rows = np.full(len(pictures), len(search.images))
    np.minimum.at(rows, pictures.of(search.images), np.arange(len(search.images)))
    return rows


def _rows(search: Search, asked: Vectors | None) -> np.ndarray:
    """Of each query, its row in these vectors, or -1."""
    if asked is None:
        return np.full(len(search.queries), -1)
    return rows_of(search.queries["query_id"], asked.ids)


def _nullable(ranks: np.ndarray) -> pa.Array:
    return pa.array(ranks, pa.int32(), mask=ranks == NEVER)


# --- neighbours


def target_neighbours(counted: Search, search: Search) -> tuple[pa.Array, pa.Array]:
    """Of each query, the image that is nearest to a target that counts, and no target itself; and
    the cosine of their embeddings. NULL where there is none. ``search`` has all targets."""
    queries, targets = counted.pairs("targets")
    ids: list[str | None] = [None] * len(search.queries)
    cosines = np.full(len(search.queries), -np.inf, dtype=np.float32)
    if not len(targets):
        return pa.array(ids, pa.string()), pa.array(cosines, mask=np.isinf(cosines))
    distinct, of_pair = np.unique(targets, return_inverse=True)
    every = search.pairs("targets")
    most = 1 + int(np.bincount(every[0]).max())
    vectors = search.gallery.vectors[distinct]
    found = ExactIndex(search.gallery).search(vectors, k=most, removed=distinct)
    starts = np.searchsorted(found.queries, np.arange(len(distinct) + 1))
    pairs = set(zip(*(column.tolist() for column in every), strict=True))
    names = search.images.to_pylist()
    for query, row in zip(queries.tolist(), of_pair.tolist(), strict=True):
        for place in range(starts[row], starts[row + 1]):
            image, cosine = int(found.images[place]), found.scores[place]
            if (query, image) not in pairs:
                if cosine > cosines[query]:
                    ids[query], cosines[query] = names[image], cosine
                break
    return pa.array(ids, pa.string()), pa.array(cosines, mask=np.isinf(cosines))
