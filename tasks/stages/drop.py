"""A sample of what stage 1 dropped: random images of each gallery, with every query that has not
kept them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Widths
from cir_core.search.candidates import Candidates, best_of
from cir_core.search.scores import pair_scores
from storage import schemas
from storage.tables import rows_of
from storage.views import Dropped, Embedded, Retrieved
from tasks.machine import Machine
from tasks.shards import part_name
from tasks.stages.choosing import IMAGES, Choosing
from tasks.stages.searching import Search, searches
from tasks.stages.stage import ReadyPart, Work
from tasks.stages.vectors import Vectors, vectors_of

SEED = 20230526

NO_ROWS = np.empty(0, dtype=np.int64)
NONE = Candidates(NO_ROWS, NO_ROWS, NO_ROWS, np.empty(0, dtype=np.float32))


@dataclass(frozen=True)
class Drop(Choosing):
    """``k`` images of each gallery (all of a smaller one), chosen at random, seeded, whatever the
    queries: so each goes through stage 2's encoder once, and is scored with all queries of which it
    is no candidate. Nor is a reference that the protocol removes. Ranks are those in the sample,
    and no target has one.
    """

    k: int
    candidates: Retrieved
    embedded: Embedded | None = None

    makes = Dropped
    version = 1
    seconds_per_pair = 2e-6

    def settings(self) -> Mapping[str, Any]:
        removes_reference = self.ingested.protocol.removes_reference
        return {"images": self.k, "seed": SEED, "removes_reference": removes_reference}

    def inputs(self) -> Mapping[str, str]:
        others = {} if self.embedded is None else {"embeddings": self.embedded.fingerprint}
        return {**super().inputs(), "retrieve": self.candidates.fingerprint, **others}

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        return Effort(queries=forecast.work.queries, pairs=IMAGES * forecast.work.queries)

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        return 16 * IMAGES * counts.queries

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        kept = self.candidates.read("candidates", ["query_id", "pool", "image_id"])
        kept = kept.filter(pc.equal(kept["pool"], "gallery"))
        images, asked = vectors_of(self.encoded, self.fused, self.embedded)
        yield partial(self._drop, kept, images, asked)

    def _drop(
        self, kept: pa.Table, images: Vectors, asked: Vectors, shards: Sequence[str]
    ) -> Iterator[ReadyPart]:
        removes = self.ingested.protocol.removes_reference
        for shard, search in zip(
            shards, searches(self.ingested, images, asked, shards), strict=True
        ):
            chosen = _choose(len(search.images), self.k, int(shard))
            queries, rows = _dropped(search, kept, chosen, removes_reference=removes)
            scores = pair_scores(search.asked, search.gallery.vectors, queries, rows)
            found = search.candidates(best_of(queries, rows, scores, k=self.k), NONE)
            effort = Effort(queries=len(search.asked), pairs=found.num_rows)
            yield ReadyPart(self.made, part_name("candidates", shard), found, effort)
            none = schemas.TARGET_RANKS.empty_table()
            yield ReadyPart(self.made, part_name("targets", shard), none)


def _choose(images: int, most: int, gallery: int) -> np.ndarray:
    """Rows of a gallery, ascending."""
    rng = np.random.default_rng([SEED, gallery])
    return np.sort(rng.choice(images, size=min(most, images), replace=False))


def _dropped(
    search: Search, kept: pa.Table, chosen: np.ndarray, *, removes_reference: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the queries and of the images of each pair of the sample."""
    asked, images = len(search.asked), len(search.images)
    queries, rows = np.repeat(np.arange(asked), len(chosen)), np.tile(chosen, asked)
    of_kept = rows_of(kept["query_id"], search.queries["query_id"])
    images_kept = rows_of(kept["image_id"], search.images)
    is_mine = (of_kept >= 0) & (images_kept >= 0)
    taken = of_kept[is_mine] * images + images_kept[is_mine]
    removed = search.removed(removes_reference=removes_reference)
    is_dropped = ~np.isin(queries * images + rows, taken) & (removed[queries] != rows)
    return queries[is_dropped], rows[is_dropped]
