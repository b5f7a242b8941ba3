"""What all ways of choosing candidates share: what names a choice, its parts, and their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.planning.disk import Counts
from cir_core.ports import Widths
from cir_core.search.candidates import Candidates
from storage import schemas
from storage.tables import rows_of, taken
from storage.views import Encoded, Fused, Ingested, Retrieved
from tasks.stages.gallery import shards_by_gallery
from tasks.stages.stage import Stage

POOLS = "gallery", "subset"
"""In the order in which a query's rows stand."""


IMAGES = 8
"""Of each gallery, in a sample of what was dropped: a few passes through the ViT, and scores of 8
pairs a query beside the run's K. Every query's target is compared with them."""


@dataclass(frozen=True)
class Choosing(Stage[Retrieved]):
    """Parts candidates-<number> and targets-<number>, one of each per gallery. Queries whose
    reference could not be encoded have no candidates."""

    ingested: Ingested
    encoded: Encoded
    fused: Fused
    k: int | Literal["auto"]

    makes = Retrieved

    def inputs(self) -> Mapping[str, str]:
        return {
            "ingest": self.ingested.fingerprint,
            "encode": self.encoded.fingerprint,
            "fuse": self.fused.fingerprint,
        }

    def shards(self) -> Sequence[str]:
        return list(shards_by_gallery(self.ingested).values())

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """Two ids of 4 bytes (indices into a dictionary), a rank and a score of 4. zstd about
        halves this, which is not counted upon."""
        return 16 * counts.pairs


@dataclass(frozen=True)
class Asked:
    """Queries of one gallery, and its images, in gallery order; rows are counted in these."""

    images: pa.ChunkedArray
    queries: pa.Table

    def pairs(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The queries' rows, ascending, and gallery rows of the images in a list column; images
        that are not in the gallery are left out."""
        lists = self.queries[name].combine_chunks()
        queries = pc.list_parent_indices(lists).to_numpy()
        images = rows_of(pc.list_flatten(lists), self.images)
        return queries[images >= 0], images[images >= 0]

    def candidates(self, gallery: Candidates, subset: Candidates) -> pa.Table:
        """Query after query; of each the candidates from the gallery, then those of its subset."""
        queries = np.concatenate([gallery.queries, subset.queries])
        pool = np.repeat([0, 1], [len(gallery.queries), len(subset.queries)])
        order = np.argsort(queries, kind="stable")
        columns = [
            taken(self.queries["query_id"], queries[order]),
            taken(pa.chunked_array([POOLS]), pool[order]),
            taken(self.images, np.concatenate([gallery.images, subset.images])[order]),
            pa.array(np.concatenate([gallery.ranks, subset.ranks])[order], pa.int32()),
            pa.array(np.concatenate([gallery.scores, subset.scores])[order], pa.float32()),
        ]
        return pa.table(columns, schema=schemas.CANDIDATES)

    def targets(self, queries: np.ndarray, images: np.ndarray, ranks: np.ndarray) -> pa.Table:
        """A row for each target of these rows whose rank is known."""
        columns = [
            taken(self.queries["query_id"], queries),
            taken(self.images, images),
            pa.array(ranks, pa.int32()),
        ]
        return pa.table(columns, schema=schemas.TARGET_RANKS)


def within(table: pa.Table, column: str, names: list[str]) -> pa.Table:
    """The rows that have one of these names."""
    return table.filter(pc.is_in(table[column], pa.array(names, pa.string())))
