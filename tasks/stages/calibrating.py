"""Labelled queries that calibrate an adaptive K, gallery by gallery, and their gaps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.conformal import Assurance, fold_of
from cir_core.planning.effort import Effort
from cir_core.protocols import Protocol
from cir_core.search.exact import ExactIndex
from storage import schemas
from storage.views import Encoded, Ingested
from tasks.stages.choosing import within
from tasks.stages.elsewhere import Elsewhere, read_to_calibrate
from tasks.stages.gallery import categories_by_gallery, searched_galleries, shards_by_gallery
from tasks.stages.searching import Search, searches
from tasks.stages.target_ranks import counted
from tasks.stages.vectors import Vectors, vectors_of


@dataclass(frozen=True)
class Calibrated:
    """The queries of one gallery, as ``schemas.CALIBRATION``, what they assure, in words, and what
    it took to find."""

    calibration: pa.Table
    guarantee: str
    effort: Effort


@dataclass(frozen=True)
class Calibrating:
    """Whose queries calibrate; ``galleries`` are theirs, by the names of those that are asked, and
    ``guarantee`` tells of one of the latter what is assured."""

    ingested: Ingested
    images: Vectors
    asked: Vectors
    galleries: Mapping[str, str]
    guarantee: Callable[[str], str]

    def each(self, names: Sequence[str]) -> Iterator[Calibrated]:
        """Of the galleries that are asked under these names, one after the other."""
        shards = shards_by_gallery(self.ingested)
        theirs = [shards[self.galleries[name]] for name in names]
        every = searches(self.ingested, self.images, self.asked, theirs)
        queries, protocol = self.ingested.read("queries"), self.ingested.protocol
        for name, search in zip(names, every, strict=True):
            guarantee = self.guarantee(name)
            mine = asked_of(self.ingested, queries, search.name)
            calibration = _calibration(mine, search, protocol)
            effort = Effort(queries=calibration.num_rows, flops=search.flops)
            yield Calibrated(calibration, guarantee, effort)


def calibrating_itself(
    ingested: Ingested, images: Vectors, asked: Vectors, assurance: Assurance
) -> Calibrating:
    """By its own queries."""
    galleries = {name: name for name in categories_by_gallery(ingested)}
    return Calibrating(ingested, images, asked, galleries, lambda _: assurance.words)


def calibrating_from(
    elsewhere: Elsewhere, ingested: Ingested, encoded: Encoded, assurance: Assurance
) -> Calibrating:
    """By another run's; telling what is assured raises as ``Elsewhere.words``. Raises StoreCorrupt
    as ``read_to_calibrate``."""
    with read_to_calibrate(elsewhere.run):
        there, retrieved = elsewhere.run.ingested, elsewhere.run.candidates
        vectors = vectors_of(retrieved.encoded, retrieved.fused, retrieved.embedded)
        theirs = searched_galleries(there, retrieved.encoded)
    usable = searched_galleries(ingested, encoded)

    def guarantee(name: str) -> str:
        mine = theirs[elsewhere.galleries[name]]
        return elsewhere.words(assurance, here=usable[name], there=mine)

    return Calibrating(there, *vectors, elsewhere.galleries, guarantee)


def asked_of(ingested: Ingested, queries: pa.Table, gallery: str) -> pa.Table:
    """Those of the queries that are asked of a gallery."""
    return within(queries, "category", categories_by_gallery(ingested)[gallery])


def _calibration(asked: pa.Table, search: Search, protocol: Protocol) -> pa.Table:
    """The labelled queries, and their gaps."""
    search = replace(search, queries=counted(protocol, search.queries))
    removed = search.removed(removes_reference=protocol.removes_reference)
    calibrating = asked.filter(pc.is_valid(asked["targets"]))["query_id"].to_pylist()
    found = dict(zip(search.queries["query_id"].to_pylist(), _gaps(search, removed), strict=True))
    rows = [
        {"query_id": query, "fold": fold_of(query), "gap": found.get(query, np.inf)}
        for query in calibrating
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
