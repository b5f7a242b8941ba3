"""How far below its best score a query's candidates reach, where K is adaptive: conformal risk
control with the labelled queries of the same gallery."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.conformal import FOLDS, Assurance, fold_of, threshold
from cir_core.errors import PreflightError
from cir_core.planning.effort import Effort, Forecast
from cir_core.protocols import Protocol
from cir_core.search.exact import ExactIndex
from storage import schemas
from storage.views import Embedded, Encoded, Fused, Ingested, Thresholds
from tasks.machine import Machine
from tasks.shards import part_name
from tasks.stages.choosing import within
from tasks.stages.gallery import categories_by_gallery
from tasks.stages.halves import folds_of
from tasks.stages.searching import Search, Vectors, searches, vectors_of
from tasks.stages.stage import ReadyPart, Stage, Work
from tasks.stages.target_ranks import counted


@dataclass(frozen=True)
class Threshold(Stage[Thresholds]):
    """Parts calibration-<number> and thresholds-<number>, one of each per gallery.

    The labelled queries of a gallery are halved by their ids. A labelled query is asked with the
    threshold that the other half gave, one without label with that of all: so none calibrates
    itself. The target that counts is the best of those that count for recall. A query that cannot
    be asked, or has no target that could be found, is missed whatever the threshold.

    Raises PreflightError as ``require_enough``, and where so many have no target that could be
    found that no threshold assures the coverage.
    """

    ingested: Ingested
    encoded: Encoded
    fused: Fused
    embedded: Embedded | None
    assurance: Assurance

    makes = Thresholds
    version = 1

    def settings(self) -> Mapping[str, Any]:
        return self.assurance.settings()

    def inputs(self) -> Mapping[str, str]:
        others = {} if self.embedded is None else {"embeddings": self.embedded.fingerprint}
        return {
            "ingest": self.ingested.fingerprint,
            "encode": self.encoded.fingerprint,
            "fuse": self.fused.fingerprint,
            **others,
        }

    def shards(self) -> Sequence[str]:
        return [f"{number:05d}" for number in range(len(categories_by_gallery(self.ingested)))]

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        yield partial(self._calibrate_each, *vectors_of(self.encoded, self.fused, self.embedded))

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        work = forecast.work
        return Effort(
            queries=work.queries,
            flops=2 * forecast.stage1.embedding * work.compared,
            seconds=work.compared * forecast.speeds.search,
        )

    def known(self) -> pa.Table:
        """The thresholds as they are, or will be; the embeddings are there."""
        if self.made.is_done:
            return self.made.read("thresholds")
        vectors = vectors_of(self.encoded, self.fused, self.embedded)
        parts = self._calibrate_each(*vectors, self.shards())
        return pa.concat_tables(one.content for one in parts if one.part.startswith("thresholds"))

    def _calibrate_each(
        self, images: Vectors, asked: Vectors, shards: Sequence[str]
    ) -> Iterator[ReadyPart]:
        view, queries = self.made, self.ingested.read("queries")
        every = searches(self.ingested, images, asked, shards)
        for shard, search in zip(shards, every, strict=True):
            mine = _asked_of(self.ingested, queries, search.name)
            calibration = _calibration(mine, search, self.ingested.protocol)
            found = [
                _row(search.name, fold, calibration["gap"].to_numpy()[calibrating], self.assurance)
                for fold, calibrating in _groups(mine)
            ]
            effort = Effort(queries=calibration.num_rows)
            yield ReadyPart(view, part_name("calibration", shard), calibration, effort)
            table = pa.Table.from_pylist(found, schemas.THRESHOLDS)
            yield ReadyPart(view, part_name("thresholds", shard), table)


def require_enough(ingested: Ingested, assurance: Assurance) -> None:
    """Raises PreflightError where a gallery has queries and too few that are labelled: hours before
    these are encoded."""
    queries = ingested.read("queries")
    for name in categories_by_gallery(ingested):
        for _, calibrating in _groups(_asked_of(ingested, queries, name)):
            _require_enough(name, int(calibrating.sum()), assurance)


def _asked_of(ingested: Ingested, queries: pa.Table, gallery: str) -> pa.Table:
    return within(queries, "category", categories_by_gallery(ingested)[gallery])


def _groups(asked: pa.Table) -> Iterator[tuple[int | None, np.ndarray]]:
    """The folds that have queries, and which of the labelled ones calibrate each."""
    folds = folds_of(asked)
    of_labelled = np.array([fold for fold in folds if fold is not None], dtype=int)
    for fold in range(FOLDS):
        if (of_labelled == fold).any():
            yield fold, of_labelled != fold
    if None in folds:
        yield None, np.ones(len(of_labelled), dtype=bool)


def _calibration(asked: pa.Table, search: Search, protocol: Protocol) -> pa.Table:
    """The labelled queries, and their gaps."""
    search = replace(search, queries=counted(protocol, search.queries))
    removed = search.removed(removes_reference=protocol.removes_reference)
    labelled = asked.filter(pc.is_valid(asked["targets"]))["query_id"].to_pylist()
    found = dict(zip(search.queries["query_id"].to_pylist(), _gaps(search, removed), strict=True))
    rows = [
        {"query_id": query, "fold": fold_of(query), "gap": found.get(query, np.inf)}
        for query in labelled
    ]
    return pa.Table.from_pylist(rows, schemas.CALIBRATION)


def _gaps(search: Search, removed: np.ndarray) -> np.ndarray:
    """By how much each query's best target scores lower than its best image, in fp64; infinite
    where there is none to be found."""
    queries, images = search.pairs("targets")
    there = images != removed[queries]
    queries, images = queries[there], images[there]
    targets = np.full(len(search.asked), -np.inf)
    np.maximum.at(targets, queries, search.scores(queries, images))
    found = ExactIndex(search.gallery).search(search.asked, k=1, removed=removed)
    best = np.zeros(len(search.asked))
    best[found.queries] = found.scores
    return best - targets


def _row(gallery: str, fold: int | None, gaps: np.ndarray, assurance: Assurance) -> dict[str, Any]:
    _require_enough(gallery, len(gaps), assurance)
    found = threshold(gaps, assurance)
    assert found is not None, "there are enough"
    if not np.isfinite(found):
        lost = int(np.isinf(gaps).sum())
        raise PreflightError(
            f"no number of candidates covers {assurance.coverage:g} of the queries",
            item=f"gallery {gallery}",
            cause=f"{lost} of {len(gaps)} calibration queries have no target that could be found: "
            "it is no member, could not be used, or is the reference that the protocol removes",
            remedy="pass a lower --coverage, or a number of candidates: -k 50",
        )
    return {
        "gallery": gallery,
        "fold": fold,
        "n": len(gaps),
        "coverage_asked": assurance.coverage,
        "risk": assurance.risk,
        "threshold": found,
        "guarantee": assurance.words,
    }


def _require_enough(gallery: str, n: int, assurance: Assurance) -> None:
    if assurance.most_missed(n) is not None:
        return
    least = assurance.least_queries
    raise PreflightError(
        f"{n} labelled queries are too few to choose K by",
        item=f"gallery {gallery}",
        cause=f"a coverage of {assurance.coverage:g}"
        + ("" if assurance.risk is None else f" with a risk of {assurance.risk:g}")
        + f" takes {least} to calibrate with, and each half of the labelled queries calibrates the "
        "other",
        remedy=f"label {FOLDS * least} queries of it or a few more, pass a lower --coverage, or a "
        "number of candidates: -k 50",
    )
