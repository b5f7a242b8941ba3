"""What is searched, gallery by gallery: the usable images and queries, and their embeddings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cir_core.search.candidates import NONE_REMOVED, Candidates, best_of
from cir_core.search.ranks import target_ranks
from cir_core.search.scores import Gallery, pair_scores
from storage import tables
from storage.tables import rows_of
from storage.views import Embedded, Encoded, Fused, Ingested
from tasks.stages.choosing import Asked, within
from tasks.stages.gallery import categories_by_gallery


@dataclass(frozen=True)
class Vectors:
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

    def among(self, ids: pa.ChunkedArray) -> "Vectors":
        """Those of these ids."""
        there = rows_of(self.ids, ids) >= 0
        if there.all():
            return self
        return Vectors(self.ids.filter(pa.array(there)), self.matrix[there])

    def with_one(self, table: pa.Table, key: str) -> pa.Table:
        """The rows of a table whose id has an embedding."""
        return table.filter(pa.array(rows_of(table[key], self.ids) >= 0))


@dataclass(frozen=True)
class Search(Asked):
    """What is asked of one gallery, whose name this is."""

    name: str
    gallery: Gallery
    asked: np.ndarray

    @property
    def flops(self) -> int:
        """Of comparing every query with every image."""
        images, width = self.gallery.vectors.shape
        return 2 * int(width) * int(images) * len(self.asked)

    def removed(self, *, removes_reference: bool) -> np.ndarray:
        """Of each query, the row that may not answer it: its reference's, or none."""
        if removes_reference:
            return rows_of(self.queries["reference_id"], self.images)
        return np.full(len(self.asked), NONE_REMOVED)

    def scores(self, queries: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Of pairs of rows."""
        return pair_scores(self.asked, self.gallery.vectors, queries, images)

    def tables(self, found: Candidates, removed: np.ndarray) -> tuple[pa.Table, pa.Table]:
        """Rows of candidates, and of targets with their ranks in the whole gallery."""
        queries, images = self.pairs("targets")
        ranks = target_ranks(
            self.asked,
            self.gallery,
            found,
            removed=removed,
            target_queries=queries,
            target_images=images,
        )
        return self.candidates(found, self._subset()), self.targets(queries, images, ranks)

    def _subset(self) -> Candidates:
        """The usable members of each query's subset, best first (ties: gallery order)."""
        queries, images = self.pairs("subset")
        return best_of(queries, images, self.scores(queries, images), k=max(1, len(images)))


def vectors_of(
    encoded: Encoded, fused: Fused, embedded: Embedded | None
) -> tuple[Vectors, Vectors]:
    """Of images and queries: stage 1's own, or those that were handed over, of the images and
    queries that stage 1 could see."""
    if embedded is None:
        return (
            read_vectors(encoded, "embeddings", "image_id"),
            read_vectors(fused, "queries", "query_id"),
        )
    seen = encoded.read("embeddings", ["image_id"])["image_id"]
    asked = fused.read("queries", ["query_id"])["query_id"]
    return (
        read_vectors(embedded, "gallery", "image_id").among(seen),
        read_vectors(embedded, "queries", "query_id").among(asked),
    )


def read_vectors(artifact: Encoded | Fused | Embedded, kind: str, key: str) -> Vectors:
    table = artifact.read(kind, columns=[key, "embedding"])
    return Vectors(table[key], tables.vectors_of(table["embedding"]))


def searches(
    ingested: Ingested, images: Vectors, asked: Vectors, shards: Sequence[str]
) -> Iterator[Search]:
    """Of the galleries with these numbers (``Choosing.shards``), one after the other: images and
    queries that have an embedding."""
    members, questions = ingested.read("gallery"), ingested.read("queries")
    galleries = list(categories_by_gallery(ingested).items())
    for shard in shards:
        name, categories = galleries[int(shard)]
        mine = images.with_one(within(members, "gallery", [name]), "image_id")["image_id"]
        usable = asked.with_one(within(questions, "category", categories), "query_id")
        gallery = Gallery(images.of(mine))
        yield Search(mine, usable, name, gallery, asked.of(usable["query_id"]))
