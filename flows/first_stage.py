"""Whose candidates are re-ranked: stage 1's, a file's, or those found among given embeddings."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cir_core.errors import UsageError
from flows.inputs import Inputs
from storage.sources.embeddings import FILES
from storage.views import Embedded, Ingested
from tasks.stages.choosing import Choosing
from tasks.stages.elsewhere import Asking, find_elsewhere
from tasks.stages.encode import Encode
from tasks.stages.fuse import Fuse
from tasks.stages.gallery import largest_gallery
from tasks.stages.handed_over import Split, read_handed_over
from tasks.stages.read_candidates import ReadCandidates
from tasks.stages.read_embeddings import HandedVectors, ReadEmbeddings, read_vectors
from tasks.stages.retrieve import Retrieve
from tasks.stages.retrieve_within import RetrieveWithin
from tasks.stages.stage import Stage
from tasks.stages.threshold import Threshold, require_enough

_log = logging.getLogger(__name__)


def choosing_of(
    inputs: Inputs, ingested: Ingested, encode: Encode, fuse: Fuse
) -> tuple[Sequence[Stage[Any]], Choosing]:
    """The stage that chooses candidates, and what is made before it. Reads what is handed over and
    checks it against the split, hours before it is used; raises as ``read_handed_over`` and
    ``read_vectors``, and of an adaptive K as ``find_elsewhere`` and ``require_enough``."""
    store, seen = inputs.store, (ingested, encode.made, fuse.made)
    if inputs.candidates is not None:
        found = read_handed_over(inputs.candidates, Split(ingested))
        _tell(found.notes)
        assert inputs.k != "auto", "it is refused before"
        k = found.deepest if inputs.k == "all" else inputs.k
        if k > found.deepest:
            _log.warning("K=%d, and no query has more than %d candidates", k, found.deepest)
        return (), ReadCandidates(store, *seen, k, inputs.candidates, found.digest)
    embedded: Embedded | None = None
    vectors: HandedVectors | None = None
    read: list[Stage[Any]] = []
    if inputs.embeddings is not None:
        vectors = read_vectors(inputs.embeddings, ingested)
        _tell(vectors.notes)
        reading = ReadEmbeddings(store, ingested, inputs.embeddings, vectors.digest)
        read, embedded = [reading], reading.made
    if inputs.k == "auto":
        assert inputs.assurance is not None, "it goes with an adaptive K"
        elsewhere = None
        if inputs.calibrate is not None:
            handed = None if vectors is None else vectors.gallery
            asked = Asking(ingested, encode.model, fuse.text_weight, handed)
            elsewhere = find_elsewhere(inputs.calibrate, asked, goes_on=inputs.no_guarantee)
        require_enough(ingested, inputs.assurance, elsewhere)
        threshold = Threshold(store, *seen, embedded, inputs.assurance, elsewhere)
        within = RetrieveWithin(store, *seen, inputs.k, threshold.made, embedded)
        return [*read, threshold], within
    takes_all = inputs.k == "all"
    k = largest_gallery(ingested) if inputs.k == "all" else inputs.k
    return read, Retrieve(store, *seen, k, inputs.index, embedded, takes_all)


def files_of(inputs: Inputs) -> list[Path]:
    """What is handed over."""
    folder = inputs.embeddings
    embeddings = [] if folder is None else [folder / file for file in FILES.values()]
    return embeddings + ([] if inputs.candidates is None else [inputs.candidates])


def require_no_prior(inputs: Inputs, prior: float) -> None:
    """Raises UsageError for a stage 2 that adds stage 1's cosine, where the scores are others'."""
    if prior and files_of(inputs):
        raise UsageError(
            "this stage 2 adds stage 1's score to its own, and the first stage is another",
            item=str(inputs.stage2),
            cause=f"its prior, {prior:.4g}, is in units of its own stage 1's cosine",
            remedy="use a stage 2 without prior (docs/first-stages.md), or leave out --candidates "
            "and --embeddings",
        )


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        _log.info("%s", note)
