"""Stage 1's candidates where K is adaptive: all images within a threshold of a query's best."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cir_core.planning.effort import Effort, Forecast
from cir_core.search.exact import ExactIndex
from cir_core.search.within import search_within
from storage.views import Embedded, Thresholds
from tasks.machine import Machine
from tasks.shards import part_name
from tasks.stages.choosing import Choosing
from tasks.stages.halves import thresholds_of
from tasks.stages.searching import searches
from tasks.stages.stage import ReadyPart, Work
from tasks.stages.vectors import Vectors, vectors_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrieveWithin(Choosing):
    """By exact search among the embeddings, as ``Retrieve``: of each query the images whose score
    is its best score less its threshold, or more; so one at least, if its gallery has any."""

    thresholds: Thresholds
    embedded: Embedded | None = None

    version = 3
    seconds_per_pair = 0.3e-6

    def settings(self) -> Mapping[str, Any]:
        removes_reference = self.ingested.protocol.removes_reference
        return {"k": self.k, "removes_reference": removes_reference, "index": "exact"}

    def inputs(self) -> Mapping[str, str]:
        others = {} if self.embedded is None else {"embeddings": self.embedded.fingerprint}
        return {**super().inputs(), **others, "threshold": self.thresholds.fingerprint}

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        thresholds = self.thresholds.read("thresholds")
        yield partial(self._search_each, *self._vectors(), thresholds)

    def known(self, thresholds: pa.Table) -> pa.Table:
        """The candidates as they will be, once the embeddings are there."""
        parts = self._search_each(*self._vectors(), thresholds, self.shards())
        return pa.concat_tables(one.content for one in parts if one.part.startswith("candidates"))

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        work, speeds = forecast.work, forecast.speeds
        return Effort(
            queries=work.queries,
            pairs=work.candidates,
            flops=2 * forecast.stage1.embedding * work.compared,
            seconds=work.images * speeds.index + work.compared * speeds.search,
        )

    def _vectors(self) -> tuple[Vectors, Vectors]:
        return vectors_of(self.encoded, self.fused, self.embedded)

    def _search_each(
        self, images: Vectors, asked: Vectors, thresholds: pa.Table, shards: Sequence[str]
    ) -> Iterator[ReadyPart]:
        view, removes_reference = self.made, self.ingested.protocol.removes_reference
        every = searches(self.ingested, images, asked, shards)
        for shard, search in zip(shards, every, strict=True):
            removed = search.removed(removes_reference=removes_reference)
            found = search_within(
                ExactIndex(search.gallery),
                search.asked,
                reach=thresholds_of(search.queries, thresholds, search.name),
                removed=removed,
                images=len(search.images),
            )
            _tell(search.name, np.bincount(found.queries, minlength=len(search.asked)))
            chosen, targets = search.tables(found, removed)
            effort = Effort(queries=len(search.asked), pairs=chosen.num_rows, flops=search.flops)
            yield ReadyPart(view, part_name("candidates", shard), chosen, effort)
            yield ReadyPart(view, part_name("targets", shard), targets)


def _tell(gallery: str, ks: np.ndarray) -> None:
    if len(ks):
        _log.info(
            "gallery %s: %d to %d candidates a query, %.1f on average",
            gallery, ks.min(), ks.max(), ks.mean(),
        )  # fmt: skip
