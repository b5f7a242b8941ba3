"""Gallery embeddings that earlier artifacts hold."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from storage.relatives import relatives
from storage.tables import rows_of, vectors_of
from storage.views import Encoded
from tasks.feed.pictures import Distinct
from tasks.stages.earlier.wanted import Wanted, contents_for


@dataclass(frozen=True)
class Embeddings:
    """Of these pictures, ascending."""

    pictures: np.ndarray
    vectors: np.ndarray

    def of(self, pictures: range) -> "Embeddings":
        """Those of these pictures."""
        start, stop = np.searchsorted(self.pictures, [pictures.start, pictures.stop])
        return Embeddings(self.pictures[start:stop], self.vectors[start:stop])


def joined(every: Iterable[Embeddings]) -> Embeddings:
    """Of different pictures; of none, the width is 0."""
    some = [one for one in every if len(one.pictures)]
    if not some:
        return Embeddings(np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32))
    pictures = np.concatenate([one.pictures for one in some])
    order = np.argsort(pictures)
    return Embeddings(pictures[order], np.concatenate([one.vectors for one in some])[order])


def find_embeddings(encoded: Encoded, pictures: Distinct) -> Embeddings:
    """Those of the pictures that an earlier artifact has."""
    every = relatives(encoded, apart_from=["images"], kind=Encoded)
    wanted, found = Wanted(len(pictures)), list[Embeddings]()
    for table in wanted.read(every, _embeddings):
        mine, rows = wanted.take(rows_of(table["sha256"], pictures.table["sha256"]))
        vectors = vectors_of(table["embedding"].take(pa.array(rows)))
        found.append(Embeddings(mine, vectors))
    return joined(found)


def _embeddings(encoded: Encoded) -> pa.Table:
    table = encoded.read("embeddings")
    sha256 = contents_for(encoded, "images").of_images(table["image_id"])
    return table.append_column("sha256", sha256)
