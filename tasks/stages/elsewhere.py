"""Another run's labelled queries, that calibrate this one's candidates; and whether what they
assure there holds here."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.conformal import NO_GUARANTEE, Assurance
from cir_core.errors import PreflightError, StoreCorrupt
from cir_core.metrics.galleries import SearchedGallery
from cir_core.protocols import Protocol
from storage.runs import read_as_ours
from storage.tables import rows_of
from storage.views import Evaluated, Ingested
from tasks.stages.gallery import searched_galleries
from tasks.stages.target_ranks import labelled
from tasks.stages.vectors import Vectors, read_vectors

DIGITS = 16
"""Of a sha256, told to people."""

OWN = "stage 1's own"


class Difference(NamedTuple):
    """In what two runs differ, and how: of one gallery here alone, or of all that is asked."""

    what: str
    there: str
    here: str
    gallery: str | None = None


@dataclass(frozen=True)
class Asking:
    """How a run's queries are asked: with a gap of one run, the same gap of the other means the
    same only where these agree. ``embeddings`` are the images' that were handed over; None where
    stage 1's own are searched."""

    ingested: Ingested
    stage1: str
    text_weight: float | None
    embeddings: Vectors | None


@dataclass(frozen=True)
class Elsewhere:
    """``galleries`` are the run's, by the names of those here that they calibrate; ``differing`` is
    what takes the guarantee away, and with ``goes_on`` there need be none."""

    run: Evaluated
    galleries: Mapping[str, str]
    differing: tuple[Difference, ...]
    goes_on: bool

    def settings(self) -> dict[str, str]:
        """As an artifact's identity records it."""
        source = self.run.ingested
        lacking = {"guarantee": "none"} if self.differing else {}
        return {"calibrated_on": f"{source.setting('split')}, {source.protocol.name}", **lacking}

    def words(self, assurance: Assurance, *, there: SearchedGallery, here: SearchedGallery) -> str:
        """What is assured of a gallery, or that nothing is, and why. Only now it is known which
        images could be decoded: raises PreflightError where they are others there than here, unless
        it ``goes_on``."""
        known = (one for one in self.differing if one.gallery in (None, here.category))
        differing = dict.fromkeys((*known, *_of_gallery(there, here)))
        if not differing:
            return assurance.words
        if not self.goes_on:
            raise _refused(self.run, tuple(differing))
        other = ", ".join(dict.fromkeys(one.what for one in differing))
        return f"{NO_GUARANTEE}: run {self.run.run_id} differs in {other}"


def asking_of(run: Evaluated) -> Asking:
    """Of a finished run. Raises StoreCorrupt where it is not whole."""
    retrieved = run.candidates
    embedded = retrieved.embedded
    embeddings = None if embedded is None else read_vectors(embedded, "gallery", "image_id")
    weight, model = retrieved.fused.text_weight, retrieved.encoded.digest("model")
    return Asking(run.ingested, model, weight, embeddings)


def find_elsewhere(run: Evaluated, asked: Asking, *, goes_on: bool) -> Elsewhere:
    """The labelled queries of ``run``, to calibrate what is ``asked``.

    Raises PreflightError where they are asked otherwise, of another gallery, or are some of the
    very queries, unless it ``goes_on`` without guarantee; and, in any case, where a gallery has
    none to calibrate with. Raises StoreCorrupt as ``read_to_calibrate``.
    """
    with read_to_calibrate(run):
        run.require_current()
        calibrating = asking_of(run)
        run.candidates.fused.read("queries", ["query_id"])  # its bytes, hours before they are used
        there, here = calibrating.ingested, asked.ingested
        theirs, ours = (searched_galleries(one, None) for one in (there, here))
        galleries = _matching(theirs, ours, run)
        of_galleries = (_of_gallery(theirs[galleries[name]], one) for name, one in ours.items())
        differing = (
            *in_asking(calibrating, asked),
            *chain.from_iterable(of_galleries),
            *in_queries(there, here),
        )
    if differing and not goes_on:
        raise _refused(run, differing)
    return Elsewhere(run, galleries, differing, goes_on)


@contextmanager
def read_to_calibrate(run: Evaluated) -> Iterator[None]:
    """Raises StoreCorrupt where a run that calibrates is not whole: another command than the one
    that met it makes it so again."""
    try:
        with read_as_ours(run):
            yield
    except StoreCorrupt as error:
        raise StoreCorrupt(
            "the run that calibrates is not whole",
            item=_called(run),
            cause=error.in_a_line,
            remedy="repeat that run's command, which makes again what is damaged, or --calibrate "
            "with another run",
        ) from error


def _matching(
    theirs: Mapping[str, SearchedGallery], ours: Mapping[str, SearchedGallery], run: Evaluated
) -> dict[str, str]:
    """Which gallery there calibrates each one here: the one with the same images, else the one with
    the same name. Raises PreflightError where there is neither."""
    by_content = {one.sha256: name for name, one in theirs.items()}
    found = {name: by_content.get(one.sha256, name) for name, one in ours.items()}
    strange = [name for name in ours if found[name] not in theirs]
    if strange:
        raise PreflightError(
            "a gallery has nothing to calibrate it with",
            item="\n".join(f"gallery {name}" for name in strange),
            cause=f"run {run.run_id} searched others: {', '.join(theirs)}",
            remedy="--calibrate with a run over the same gallery, or pass a number of candidates: "
            "-k 50",
        )
    return found


def _refused(run: Evaluated, differing: tuple[Difference, ...]) -> PreflightError:
    return PreflightError(
        "what another run's queries calibrate is not guaranteed here",
        item=_called(run),
        cause="\n".join(f"{one.what}: {one.there} there, {one.here} here" for one in differing),
        remedy="--calibrate with a run that was asked alike, of the same gallery (`cir-pipeline "
        "runs ls`), or go on without guarantee: --no-guarantee",
    )


def _called(run: Evaluated) -> str:
    label = run.label.name
    return f"run {run.run_id}" + (f" {label!r}" if label else "")


def in_asking(there: Asking, here: Asking) -> Iterator[Difference]:
    """In what queries are asked otherwise; handed embeddings of the images that are searched here
    are compared by their bytes, those of the queries cannot be."""
    if there.stage1 != here.stage1:
        yield Difference("stage 1", there.stage1[:DIGITS], here.stage1[:DIGITS])
    if there.text_weight != here.text_weight:
        weights = (_weight(one.text_weight) for one in (there, here))
        yield Difference("text weight", *weights)
    images = pc.unique(here.ingested.read("gallery", ["image_id"])["image_id"])
    sources = [_embeddings(one, images) for one in (there, here)]
    if sources[0] != sources[1]:
        yield Difference("embeddings", *sources)
    protocols = there.ingested.protocol, here.ingested.protocol
    if _how(protocols[0]) != _how(protocols[1]):
        yield Difference("protocol", *(one.name for one in protocols))


def _of_gallery(there: SearchedGallery, here: SearchedGallery) -> Iterator[Difference]:
    if there.sha256 != here.sha256:
        told = _gallery(there), _gallery(here)
        yield Difference(f"gallery {here.category}", *told, here.category)


def in_queries(there: Ingested, here: Ingested) -> Iterator[Difference]:
    """Whether queries that are asked here calibrate there. They are the same with the same texts
    and the same reference, byte by byte, whatever they and it are called."""
    calibrating = {*_questions(there, labelled(there))}
    asked = _questions(here, here.read("queries"))
    again = sum(one in calibrating for one in asked)
    if again:
        yield Difference(
            "queries",
            f"{len(calibrating):,} calibrate",
            f"{again:,} of {len(asked):,} are among them, and would calibrate themselves",
        )


def _questions(ingested: Ingested, queries: pa.Table) -> list[tuple[str, ...]]:
    """Of those that can be asked: the sha256 of the reference, and the texts."""
    images = ingested.read("images", ["image_id", "sha256"])
    rows = rows_of(queries["reference_id"], images["image_id"])
    queries = queries.filter(pa.array(rows >= 0))
    references = images["sha256"].take(pa.array(rows[rows >= 0]))
    columns = (references, queries["text"], queries["other_text"])
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _how(protocol: Protocol) -> tuple[object, ...]:
    """What of a protocol moves a gap: how metrics are counted does not. Captions are joined by
    each dataset's own rule."""
    return (
        *(protocol.dataset, protocol.removes_reference, protocol.captions),
        *(protocol.shared_concept, protocol.recall_on),
    )


def _embeddings(asking: Asking, images: pa.Array | pa.ChunkedArray) -> str:
    """The sha256 of these images' vectors, as far as there are any."""
    if asking.embeddings is None:
        return OWN
    rows = rows_of(images, asking.embeddings.ids)
    known = np.ascontiguousarray(asking.embeddings.matrix[rows[rows >= 0]], dtype="<f4")
    return f"from files ({hashlib.sha256(known.data).hexdigest()[:DIGITS]})"


def _weight(weight: float | None) -> str:
    return "the model's" if weight is None else f"{weight:g}"


def _gallery(one: SearchedGallery) -> str:
    return f"{one.sha256[:DIGITS]} ({one.images:,} images)"
