"""Candidates that a file hands over: read, checked against the split, named by what they are."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.datasets.near_names import ImageNames
from cir_core.datasets.row_faults import RowFaults, refuse_files, shown
from cir_core.submissions.trec import unescaped
from cir_core.types import ImageId
from storage.sources.candidates import CandidateRows, read_candidates
from storage.tables import rows_of
from storage.views import Ingested
from tasks.stages.gallery import categories_by_gallery

NOWHERE = -1
"""In place of a row."""

REMEDY = (
    "correct the file; docs/first-stages.md tells what is expected. With --category, or another "
    "protocol, other queries are asked, of other galleries"
)


@dataclass(frozen=True)
class HandedOver:
    """Candidates by the rows of the ingested tables ``queries`` and ``gallery``, ascending, none
    twice, with fp32 scores.

    What cannot be a candidate is not among them: a query's own reference where the protocol removes
    it, images without a usable file, and candidates of queries whose reference has none.
    """

    queries: np.ndarray
    members: np.ndarray
    scores: np.ndarray
    notes: tuple[str, ...] = ()
    """What of the file is left out, and why: no fault, but its owner wants to know."""

    @cached_property
    def digest(self) -> str:
        """sha256 of them: the same of one choice in any format and order of rows."""
        digest = hashlib.sha256()
        for column, kind in ((self.queries, "<i8"), (self.members, "<i8"), (self.scores, "<f4")):
            digest.update(np.ascontiguousarray(column, dtype=kind).tobytes())
        return digest.hexdigest()

    @property
    def deepest(self) -> int:
        """The candidates of the query that has most."""
        return int(np.unique(self.queries, return_counts=True)[1].max(initial=0))

    def of(self, rows: np.ndarray) -> "HandedOver":
        """Some of them, by a mask."""
        return HandedOver(self.queries[rows], self.members[rows], self.scores[rows])


class Split:
    """The ingested queries and galleries by their rows. Galleries are numbered in their order."""

    def __init__(self, ingested: Ingested) -> None:
        self.ingested = ingested
        self.queries, self.gallery = ingested.read("queries"), ingested.read("gallery")
        galleries = categories_by_gallery(ingested)
        of_category = {
            one: number for number, mine in enumerate(galleries.values()) for one in mine
        }
        names = pa.chunked_array([list(galleries)], pa.string())
        categories = pa.chunked_array([list(of_category)], pa.string())
        self.galleries = list(galleries)
        self.gallery_of_query = np.array(list(of_category.values()), dtype=np.int64)[
            rows_of(self.queries["category"], categories)
        ]
        self.gallery_of_member = rows_of(self.gallery["gallery"], names)
        self.images = pa.chunked_array([pc.unique(self.gallery["image_id"])])
        keys = self._keys(self.gallery_of_member, rows_of(self.gallery["image_id"], self.images))
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def members(self, queries: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Where images (rows of ``images``) stand in the galleries of queries; NOWHERE where they
        do not, or one of the two is NOWHERE."""
        galleries = np.append(self.gallery_of_query, NOWHERE)[queries]
        wanted = self._keys(galleries, images)
        place = np.searchsorted(self._sorted, wanted)
        there = np.append(self._sorted, NOWHERE)[place] == wanted
        there &= (queries >= 0) & (images >= 0)
        return np.where(there, np.append(self._order, NOWHERE)[place], NOWHERE)

    def references(self) -> np.ndarray:
        """Where each query's reference stands in its gallery."""
        images = rows_of(self.queries["reference_id"], self.images)
        return self.members(np.arange(self.queries.num_rows), images)

    def has_file(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Whether images have a file that could be read when they were ingested."""
        return rows_of(ids, self.ingested.read("images", ["image_id"])["image_id"]) >= 0

    def _keys(self, galleries: np.ndarray, images: np.ndarray) -> np.ndarray:
        return galleries * len(self.images) + images


def read_handed_over(path: Path, split: Split) -> HandedOver:
    """A file's candidates.

    Raises PreflightError when it cannot be read, and AnnotationError that tells all faults by line:
    rows of another form, queries that are not asked, images that are not in the query's gallery,
    scores that are no finite fp32 numbers, a pair that is there twice; and every query without a
    candidate.
    """
    rows = read_candidates(path)
    queries = _rows(rows.queries, split.queries["query_id"], rows)
    images = _rows(rows.images, split.images, rows)
    members = split.members(queries, images)
    with np.errstate(over="ignore"):  # beyond fp32: infinite, and refused
        scores = rows.scores.astype(np.float32)
    usable = members >= 0
    _add_faults(rows, split, queries, images, members)
    _add_no_numbers(rows, scores)
    order = np.lexsort((rows.places, members, queries))
    order = order[usable[order]]
    found = HandedOver(queries[order], members[order], scores[order])
    _add_doubles(rows, order, found)
    found = _without_unusable(found, split)
    _add_unanswered(rows.faults, found, split)
    refuse_files({str(path): rows.faults}, remedy=REMEDY)
    unread = "columns that are not read: " + ", ".join(map(shown, rows.others))
    return replace(found, notes=(unread,) * bool(rows.others) + found.notes)


def _rows(ids: pa.DictionaryArray, known: pa.ChunkedArray, rows: CandidateRows) -> np.ndarray:
    """Where each id stands among the known ones; an id of a TREC file is taken as ours are written
    there, and as it stands where nothing is called so."""
    texts = ids.dictionary
    found = rows_of(texts, known).copy()
    if rows.is_trec:
        escaped = [number for number, one in enumerate(texts.to_pylist()) if "%" in one]
        meant = rows_of(
            pa.array([unescaped(texts[one].as_py()) for one in escaped], pa.string()), known
        )
        found[escaped] = np.where(meant >= 0, meant, found[escaped])
    return found[ids.indices.to_numpy()] if len(found) else np.empty(0, dtype=np.int64)


def _add_faults(
    rows: CandidateRows, split: Split, queries: np.ndarray, images: np.ndarray, members: np.ndarray
) -> None:
    names = ImageNames(map(ImageId, split.images.to_pylist()))

    def query(row: int) -> str:
        return shown(rows.queries[row].as_py())

    def tell(row: int) -> str:
        image = rows.images[row].as_py()
        faults = []
        if queries[row] < 0:
            faults.append(f"query {query(row)} is not asked")
        if images[row] < 0:
            near = names.fault(image)
            faults.append(f"image {shown(image)} {near or 'is in no gallery'}")
        elif queries[row] >= 0:
            gallery = split.galleries[split.gallery_of_query[queries[row]]]
            faults.append(
                f"image {shown(image)} is not in the gallery {shown(gallery)}, of which query "
                f"{query(row)} is asked"
            )
        return "; ".join(faults)

    wrong = np.flatnonzero(members < 0)
    rows.faults.add(rows.places[wrong], lambda one: tell(wrong[one].item()))


def _add_no_numbers(rows: CandidateRows, scores: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(scores))
    rows.faults.add(
        rows.places[wrong],
        lambda one: f"score {rows.scores[wrong[one]]} is no finite number of fp32",
    )


def _add_doubles(rows: CandidateRows, order: np.ndarray, found: HandedOver) -> None:
    """``order`` has the rows of what was found, a pair's in the file's order."""
    if not len(order):
        return
    new = (np.diff(found.queries) != 0) | (np.diff(found.members) != 0)
    first = np.maximum.accumulate(np.where(np.r_[True, new], np.arange(len(order)), 0))
    again = np.flatnonzero(first < np.arange(len(order)))

    def tell(one: int) -> str:
        row, before = order[again[one]].item(), order[first[again[one]]].item()
        query, image = rows.queries[row].as_py(), rows.images[row].as_py()
        place = rows.faults.place(rows.places[before].item())
        return f"query {shown(query)} has image {shown(image)} already on {place}"

    rows.faults.add(rows.places[order[again]], tell)


def _without_unusable(found: HandedOver, split: Split) -> HandedOver:
    parts = {
        "are the query's own reference, which the protocol removes": (
            split.references()[found.queries] == found.members
        )
        & split.ingested.protocol.removes_reference,
        "are images without a usable file": ~split.has_file(split.gallery["image_id"])[
            found.members
        ],
        "are of queries whose reference has no usable file": ~split.has_file(
            split.queries["reference_id"]
        )[found.queries],
    }
    notes = [
        f"{rows.sum():,} candidates {why}: left out" for why, rows in parts.items() if rows.any()
    ]
    return replace(found.of(~np.logical_or.reduce([*parts.values()])), notes=tuple(notes))


def _add_unanswered(faults: RowFaults, found: HandedOver, split: Split) -> None:
    """A query that the file forgets would be a miss without a word."""
    asked = split.has_file(split.queries["reference_id"])
    asked[found.queries] = False
    missing = np.flatnonzero(asked)
    ids = split.queries["query_id"].take(pa.array(missing[:100])).to_pylist()
    faults.add_of_file(len(missing), [f"query {shown(one)} has no candidate" for one in ids])
