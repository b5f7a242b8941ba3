"""Embeddings, and whose they are: stage 1's own, or those that were handed over."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from storage import tables
from storage.tables import rows_of
from storage.views import Embedded, Encoded, Fused


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
    """Of parts of this kind, whose ids are in the column ``key``."""
    table = artifact.read(kind, columns=[key, "embedding"])
    return Vectors(table[key], tables.vectors_of(table["embedding"]))
