"""What is searched, gallery by gallery: the usable images and queries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cir_core.search.candidates import NONE_REMOVED, Candidates, best_of
from cir_core.search.ranks import target_ranks
from cir_core.search.scores import Gallery, pair_scores
from storage.tables import rows_of
from storage.views import Ingested
from tasks.stages.choosing import Asked, within
from tasks.stages.gallery import categories_by_gallery
from tasks.stages.vectors import Vectors


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
