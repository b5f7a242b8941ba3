"""Embeddings that were computed elsewhere, to be searched in place of stage 1's own."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.datasets.row_faults import refuse_files, shown
from cir_core.errors import PreflightError
from cir_core.planning.disk import FLOAT, Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Widths
from storage import schemas
from storage.sources.embeddings import FILES, VectorRows, read_embeddings
from storage.tables import rows_of, vector_column
from storage.views import Embedded, Ingested
from tasks.stages.stage import ReadyPart, Stage
from tasks.stages.vectors import Vectors

REMEDY = (
    "scale each vector, v / np.linalg.norm(v), and complete the files: every image of the "
    "galleries and every query has one; docs/first-stages.md tells what is expected"
)


@dataclass(frozen=True)
class HandedVectors:
    """One of unit length for each of the galleries' images, and of the queries, in the split's
    order; ``notes`` tell what is not used."""

    gallery: Vectors
    queries: Vectors
    notes: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """sha256 of the vectors in the split's order, which no other row of the files changes."""
        digest = hashlib.sha256()
        for one in (self.gallery.matrix, self.queries.matrix):
            digest.update(f"{one.shape}".encode())
            digest.update(np.ascontiguousarray(one, dtype="<f4").data)
        return digest.hexdigest()


@dataclass(frozen=True)
class ReadEmbeddings(Stage[Embedded]):
    """Parts gallery and queries, from a ``folder``; ``digest`` names what it hands over. Raises as
    ``read_vectors``, and PreflightError when it hands over something else meanwhile."""

    ingested: Ingested
    folder: Path
    digest: str

    makes = Embedded
    version = 1

    def settings(self) -> Mapping[str, Any]:
        return {}

    def inputs(self) -> Mapping[str, str]:
        return {"ingest": self.ingested.fingerprint, "vectors": self.digest}

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        return Effort(queries=forecast.work.queries)

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """As wide as stage 1's, which is not known here."""
        return FLOAT * widths.embedding * (counts.images + counts.queries)

    def work(self, shards: Sequence[str]) -> Iterator[ReadyPart]:
        found = read_vectors(self.folder, self.ingested)
        if found.digest != self.digest:
            raise PreflightError(
                "embeddings have changed since this run began",
                item=str(self.folder),
                cause="they are not those that the run's results are named after",
                remedy="run the same command again: what they change is made anew",
            )
        for kind, schema in self.makes.holds.items():
            one: Vectors = getattr(found, kind)
            columns = [one.ids, vector_column(one.matrix)]
            table = pa.table(columns, schema=schemas.of_width(schema, one.matrix.shape[1]))
            yield ReadyPart(self.made, kind, table)


def read_vectors(folder: Path, ingested: Ingested) -> HandedVectors:
    """The vectors of a split's usable images and queries.

    Raises PreflightError when a file cannot be read, and AnnotationError that tells all faults of
    both: vectors that cannot be used, an id that has two, an image or a query that has none, files
    whose vectors are not of one width.
    """
    files = read_embeddings(folder)
    usable = ingested.read("images", ["image_id"])["image_id"]
    members = pc.unique(ingested.read("gallery", ["image_id"])["image_id"])
    queries = ingested.read("queries", ["query_id", "reference_id"])
    wanted = {
        "gallery": members.filter(pa.array(rows_of(members, usable) >= 0)),
        "queries": queries.filter(pa.array(rows_of(queries["reference_id"], usable) >= 0))[
            "query_id"
        ],
    }
    rows = {name: _find(one, wanted[name], name) for name, one in files.items()}
    widths = {name: one.vectors.shape[1] for name, one in files.items()}
    if len(set(widths.values())) > 1:
        told = f"vectors have {widths['queries']} numbers, and the gallery's {widths['gallery']}"
        files["queries"].faults.add_of_file(1, [told])
    refuse_files({str(one.file): one.faults for one in files.values()}, remedy=REMEDY)
    gallery, asked = (
        Vectors(
            pa.chunked_array([wanted[name]]) if name == "gallery" else wanted[name],
            files[name].vectors[rows[name]],
        )
        for name in FILES
    )
    return HandedVectors(gallery, asked, tuple(_notes(files, rows)))


def _find(rows: VectorRows, wanted: pa.Array | pa.ChunkedArray, what: str) -> np.ndarray:
    """The row of each wanted id, the first of several. Doubles and missing ones become faults."""
    noun = "image" if what == "gallery" else "query"
    number = rows.ids.indices.to_numpy()
    _, first = np.unique(number, return_index=True)
    first_of_number = np.zeros(len(rows.ids.dictionary), dtype=np.int64)
    first_of_number[number[first]] = first
    again = np.flatnonzero(first_of_number[number] != np.arange(len(number)))

    def tell(one: int) -> str:
        before = rows.places[first_of_number[number[again[one]]]].item()
        return f"{noun} {shown(rows.ids[again[one].item()].as_py())} is already on row {before}"

    rows.faults.add(rows.places[again], tell)
    has_row = np.zeros(len(rows.ids.dictionary) + 1, dtype=bool)
    has_row[number] = True
    place = rows_of(wanted, pa.chunked_array([rows.ids.dictionary]))
    missing = np.flatnonzero(~has_row[place])
    ids = wanted.take(pa.array(missing[:100])).to_pylist()
    rows.faults.add_of_file(len(missing), [f"{noun} {shown(one)} has no vector" for one in ids])
    return np.append(first_of_number, 0)[place]


def _notes(files: Mapping[str, VectorRows], used: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name, one in files.items():
        more = len(one.vectors) - len(used[name])
        if more:
            yield f"{one.file}: {more:,} vectors are of nothing that this run asks or searches"
        if one.others:
            yield f"{one.file}: columns that are not read: {', '.join(map(shown, one.others))}"
