"""Stage 1's candidates: K per query from its gallery, and all members of its subset."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from cir_core.planning.effort import Effort, Forecast
from cir_core.search.choice import IndexChoice
from cir_core.search.indexes import open_index
from storage.views import Embedded
from tasks.machine import Machine
from tasks.shards import part_name
from tasks.stages.choosing import Choosing
from tasks.stages.searching import Search, searches
from tasks.stages.stage import ReadyPart, Work
from tasks.stages.vectors import Vectors, vectors_of

SECONDS_PER_GALLERY = 0.05
"""Two parts are committed for each; categories that share one count once."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retrieve(Choosing):
    """By search among the embeddings. A gallery that several categories have is searched once, for
    the queries of all of them.

    Whether a query's own reference may be a candidate is the protocol's choice. A gallery with
    fewer than ``k`` other images gives all it has, and a log line says so unless ``takes_all``
    meant just that; an approximate index may find fewer, too. ``embedded`` are searched in place of
    stage 1's own embeddings, where there are any; of the images and queries that stage 1 could see.
    """

    k: int
    index: IndexChoice
    embedded: Embedded | None = None
    takes_all: bool = False

    version = 3
    seconds_per_pair = 0.3e-6

    def settings(self) -> Mapping[str, Any]:
        removes_reference = self.ingested.protocol.removes_reference
        return {"k": self.k, "removes_reference": removes_reference, **self.index.settings()}

    def inputs(self) -> Mapping[str, str]:
        others = {} if self.embedded is None else {"embeddings": self.embedded.fingerprint}
        return {**super().inputs(), **others}

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        yield partial(self._search_each, *vectors_of(self.encoded, self.fused, self.embedded))

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        work, speeds = forecast.work, forecast.speeds
        return Effort(
            queries=work.queries,
            pairs=work.candidates,
            flops=2 * forecast.stage1.embedding * work.compared,
            seconds=work.images * speeds.index
            + work.compared * speeds.search
            + work.galleries * SECONDS_PER_GALLERY,
        )

    def _search_each(
        self, images: Vectors, asked: Vectors, shards: Sequence[str]
    ) -> Iterator[ReadyPart]:
        view, removes_reference = self.made, self.ingested.protocol.removes_reference
        for shard, work in zip(shards, searches(self.ingested, images, asked, shards), strict=True):
            most = max(0, len(work.images) - removes_reference)
            if self.k > most and not self.takes_all:
                without = " without the reference" if removes_reference else ""
                told = "K=%d is larger than the gallery %s: %d images%s"
                _log.warning(told, self.k, work.name, most, without)
            removed = work.removed(removes_reference=removes_reference)
            index = open_index(work.gallery, self.index)
            found = index.search(work.asked, k=self.k, removed=removed)
            chosen, targets = work.tables(found, removed)
            effort = self._effort(work, chosen)
            yield ReadyPart(view, part_name("candidates", shard), chosen, effort)
            yield ReadyPart(view, part_name("targets", shard), targets)

    def _effort(self, work: Search, chosen: pa.Table) -> Effort:
        """An index that does not look at every image has no FLOPs that are known."""
        flops = 0 if self.index.kind == "ivf" else work.flops
        return Effort(queries=len(work.asked), pairs=chosen.num_rows, flops=flops)
