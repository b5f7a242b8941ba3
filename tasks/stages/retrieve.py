"""Stage 1's candidates: K per query from its gallery, and all members of its subset."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.search.candidates import NONE_REMOVED, Candidates, best_of
from cir_core.search.choice import IndexChoice
from cir_core.search.indexes import open_index
from cir_core.search.ranks import target_ranks
from cir_core.search.scores import Gallery, pair_scores
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from storage.tables import rows_of, taken, vectors_of
from tasks.stages.gallery import categories_by_gallery
from tasks.stages.protocol import protocol_of

VERSION = 3

POOLS = "gallery", "subset"
"""In the order in which a query's rows stand."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Vectors:
    """Embeddings and whose they are."""

    ids: pa.ChunkedArray
    matrix: np.ndarray

    def of(self, ids: pa.ChunkedArray) -> np.ndarray:
        """The embeddings of these ids, all of which are there; no copy when they are all, in
        order."""
        rows = rows_of(ids, self.ids)
        if np.array_equal(rows, np.arange(len(self.matrix))):
            return self.matrix
        return self.matrix[rows]

    def with_one(self, table: pa.Table, key: str) -> pa.Table:
        """The rows of a table whose id has an embedding."""
        return table.filter(pa.array(rows_of(table[key], self.ids) >= 0))


@dataclass(frozen=True)
class _Search:
    """What is asked of one gallery: the usable images and queries, and their embeddings."""

    images: pa.ChunkedArray
    queries: pa.Table
    gallery: Gallery
    asked: np.ndarray

    def pairs(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The queries' rows, ascending, and gallery rows of the images in a list column; images
        that are not in the gallery are left out."""
        lists = self.queries[name].combine_chunks()
        queries = pc.list_parent_indices(lists).to_numpy()
        images = rows_of(pc.list_flatten(lists), self.images)
        return queries[images >= 0], images[images >= 0]


def retrieve(
    store: Path, ingested: str, gallery: str, queries: str, *, k: int, index: IndexChoice
) -> Made:
    """The artifact ``retrieve``: parts candidates-<number> and targets-<number>, one of each per
    gallery, since its own name may be no file's. A gallery that several categories have is searched
    once, for the queries of all of them.

    Whether a query's own reference may be a candidate is the protocol's choice. A gallery with
    fewer than ``k`` other images gives all it has, and a log line says so; an approximate index may
    find fewer, too. Queries whose reference could not be encoded have no candidates.
    """
    identity = identify(store, ingested, gallery, queries, k=k, index=index)
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    source = Artifact(store, "ingest", ingested)
    removes_reference = identity.settings["removes_reference"]
    images = _vectors(Artifact(store, "encode", gallery), "embeddings", "image_id")
    asked = _vectors(Artifact(store, "fuse", queries), "queries", "query_id")
    members, questions = source.read("gallery"), source.read("queries")
    names = []
    for number, (name, categories) in enumerate(categories_by_gallery(source).items()):
        mine = images.with_one(_within(members, "gallery", [name]), "image_id")["image_id"]
        usable = asked.with_one(_within(questions, "category", categories), "query_id")
        most = len(mine) - removes_reference
        if k > most:
            _log.warning("K=%d is larger than the gallery %s: %d images", k, name, most)
        work = _Search(mine, usable, Gallery(images.of(mine)), asked.of(usable["query_id"]))
        candidates, targets = f"candidates-{number:05d}", f"targets-{number:05d}"
        tables = _search(work, k, index, removes_reference=removes_reference)
        for part, table in zip((candidates, targets), tables, strict=True):
            artifact.write_part(part, table)
        names += [candidates, targets]
    artifact.finish(identity, names)
    return Made(identity.fingerprint, reused=False)


def identify(
    store: Path, ingested: str, gallery: str, queries: str, *, k: int, index: IndexChoice
) -> Identity:
    """What names the artifact ``retrieve``."""
    removes_reference = protocol_of(Artifact(store, "ingest", ingested)).removes_reference
    return Identity(
        stage="retrieve",
        version=VERSION,
        settings={"k": k, "removes_reference": removes_reference, **index.settings()},
        inputs={"ingest": ingested, "encode": gallery, "fuse": queries},
    )


def _search(
    work: _Search, k: int, index: IndexChoice, *, removes_reference: bool
) -> tuple[pa.Table, pa.Table]:
    """Candidates, and ranks of targets."""
    removed = np.full(len(work.asked), NONE_REMOVED)
    if removes_reference:
        removed = rows_of(work.queries["reference_id"], work.images)
    found = open_index(work.gallery, index).search(work.asked, k=k, removed=removed)
    queries, images = work.pairs("targets")
    ranks = target_ranks(
        work.asked,
        work.gallery,
        found,
        removed=removed,
        target_queries=queries,
        target_images=images,
    )
    columns = [
        taken(work.queries["query_id"], queries),
        taken(work.images, images),
        pa.array(ranks, pa.int32()),
    ]
    subset = _subset(work)
    return _candidates(work, found, subset), pa.table(columns, schema=schemas.TARGET_RANKS)


def _subset(work: _Search) -> Candidates:
    """The usable members of each query's subset, best first (ties: gallery order)."""
    queries, images = work.pairs("subset")
    scores = pair_scores(work.asked, work.gallery.vectors, queries, images)
    return best_of(queries, images, scores, k=max(1, len(images)))


def _candidates(work: _Search, gallery: Candidates, subset: Candidates) -> pa.Table:
    """Query after query; of each the candidates from the gallery, then those of its subset."""
    queries = np.concatenate([gallery.queries, subset.queries])
    pool = np.repeat([0, 1], [len(gallery.queries), len(subset.queries)])
    order = np.argsort(queries, kind="stable")
    columns = [
        taken(work.queries["query_id"], queries[order]),
        taken(pa.chunked_array([POOLS]), pool[order]),
        taken(work.images, np.concatenate([gallery.images, subset.images])[order]),
        pa.array(np.concatenate([gallery.ranks, subset.ranks])[order], pa.int32()),
        pa.array(np.concatenate([gallery.scores, subset.scores])[order], pa.float32()),
    ]
    return pa.table(columns, schema=schemas.CANDIDATES)


def _vectors(artifact: Artifact, kind: str, key: str) -> _Vectors:
    table = artifact.read(kind, columns=[key, "embedding"])
    return _Vectors(table[key], vectors_of(table["embedding"]))


def _within(table: pa.Table, column: str, names: list[str]) -> pa.Table:
    return table.filter(pc.is_in(table[column], pa.array(names, pa.string())))
