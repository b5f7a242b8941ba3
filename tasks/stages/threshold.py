"""How far below its best score a query's candidates reach, where K is adaptive: conformal risk
control with the labelled queries of the same gallery, the run's own or another's."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cir_core.conformal import FOLDS, Assurance, threshold
from cir_core.errors import PreflightError
from cir_core.planning.effort import Effort, Forecast
from storage import schemas
from storage.views import Embedded, Encoded, Fused, Ingested, Thresholds
from tasks.machine import Machine
from tasks.shards import part_name
from tasks.stages.calibrating import Calibrating, asked_of, calibrating_from, calibrating_itself
from tasks.stages.elsewhere import Elsewhere
from tasks.stages.gallery import categories_by_gallery, shards_by_gallery
from tasks.stages.halves import folds_of
from tasks.stages.stage import ReadyPart, Stage, Work
from tasks.stages.target_ranks import labelled
from tasks.stages.vectors import vectors_of


@dataclass(frozen=True)
class Threshold(Stage[Thresholds]):
    """Parts calibration-<number> and thresholds-<number>, one of each per gallery.

    The labelled queries of a gallery are halved by their ids. A labelled query is asked with the
    threshold that the other half gave, one without label with that of all: so none calibrates
    itself. The target that counts is the best of those that count for recall. A query that cannot
    be asked, or has no target that could be found, is missed whatever the threshold. Where another
    run calibrates, from ``elsewhere``, all queries are asked with what all its labelled ones give.

    Raises PreflightError as ``require_enough`` and ``Elsewhere.words``, and where so many have no
    target that could be found that no threshold assures the coverage.
    """

    ingested: Ingested
    encoded: Encoded
    fused: Fused
    embedded: Embedded | None
    assurance: Assurance
    elsewhere: Elsewhere | None = None

    makes = Thresholds
    version = 1

    def settings(self) -> Mapping[str, Any]:
        others = {} if self.elsewhere is None else self.elsewhere.settings()
        return {**self.assurance.settings(), **others}

    def inputs(self) -> Mapping[str, str]:
        others = {} if self.embedded is None else {"embeddings": self.embedded.fingerprint}
        if self.elsewhere is not None:
            others["evaluate"] = self.elsewhere.run.fingerprint
        return {
            "ingest": self.ingested.fingerprint,
            "encode": self.encoded.fingerprint,
            "fuse": self.fused.fingerprint,
            **others,
        }

    def shards(self) -> Sequence[str]:
        return list(shards_by_gallery(self.ingested).values())

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        yield partial(self._calibrate_each, self._calibrating())

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
        parts = self._calibrate_each(self._calibrating(), self.shards())
        return pa.concat_tables(one.content for one in parts if one.part.startswith("thresholds"))

    def _calibrating(self) -> Calibrating:
        if self.elsewhere is not None:
            return calibrating_from(self.elsewhere, self.ingested, self.encoded, self.assurance)
        vectors = vectors_of(self.encoded, self.fused, self.embedded)
        return calibrating_itself(self.ingested, *vectors, self.assurance)

    def _calibrate_each(
        self, calibrating: Calibrating, shards: Sequence[str]
    ) -> Iterator[ReadyPart]:
        view, queries = self.made, self.ingested.read("queries")
        name_of = {shard: name for name, shard in shards_by_gallery(self.ingested).items()}
        names = [name_of[shard] for shard in shards]
        for shard, name, one in zip(shards, names, calibrating.each(names), strict=True):
            asking = _asking(asked_of(self.ingested, queries, name), self.elsewhere)
            gaps, folds = (one.calibration[column].to_numpy() for column in ("gap", "fold"))
            rows = [
                _row(name, fold, gaps[mine], self.assurance) | {"guarantee": one.guarantee}
                for fold, mine in _groups(asking, folds)
            ]
            yield ReadyPart(view, part_name("calibration", shard), one.calibration, one.effort)
            table = pa.Table.from_pylist(rows, schemas.THRESHOLDS)
            yield ReadyPart(view, part_name("thresholds", shard), table)


def require_enough(
    ingested: Ingested, assurance: Assurance, elsewhere: Elsewhere | None = None
) -> None:
    """Raises PreflightError where a gallery has queries and too few that are labelled, in this run
    or, where that calibrates, elsewhere: hours before these are encoded."""
    queries = ingested.read("queries")
    source = ingested if elsewhere is None else elsewhere.run.ingested
    known = labelled(source)
    for name in categories_by_gallery(ingested):
        theirs = name if elsewhere is None else elsewhere.galleries[name]
        asking = _asking(asked_of(ingested, queries, name), elsewhere)
        folds = np.array(folds_of(asked_of(source, known, theirs)), dtype=int)
        for _, calibrating in _groups(asking, folds):
            _require_enough(name, int(calibrating.sum()), assurance, elsewhere)


def _asking(asked: pa.Table, elsewhere: Elsewhere | None) -> list[int | None]:
    """The folds of the queries that are asked: none where another run calibrates."""
    return folds_of(asked) if elsewhere is None else [None] * asked.num_rows


def _groups(
    asking: Sequence[int | None], folds: np.ndarray
) -> Iterator[tuple[int | None, np.ndarray]]:
    """The folds that have queries, and which of those that calibrate do so for each."""
    for fold in range(FOLDS):
        if fold in asking:
            yield fold, folds != fold
    if None in asking:
        yield None, np.ones(len(folds), dtype=bool)


def _row(gallery: str, fold: int | None, gaps: np.ndarray, assurance: Assurance) -> dict[str, Any]:
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
    }


def _require_enough(
    gallery: str, n: int, assurance: Assurance, elsewhere: Elsewhere | None
) -> None:
    if assurance.most_missed(n) is not None:
        return
    least, risk = assurance.least_queries, assurance.risk
    if elsewhere is None:
        where = ", and each half of the labelled queries calibrates the other"
        remedy = f"label {FOLDS * least} queries of it or a few more, --calibrate with another run"
    else:
        where = f"; they are all that run {elsewhere.run.run_id} has of this gallery"
        remedy = "--calibrate with a run that has more labelled queries"
    raise PreflightError(
        f"{n} labelled queries are too few to choose K by",
        item=f"gallery {gallery}",
        cause=f"a coverage of {assurance.coverage:g}"
        + ("" if risk is None else f" with a risk of {risk:g}")
        + f" takes {least} to calibrate with{where}",
        remedy=f"{remedy}, pass a lower --coverage, or a number of candidates: -k 50",
    )
