"""TREC run and qrels lines that trec_eval, which ignores the rank column, reads as our order."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from urllib.parse import quote, unquote

import numpy as np
from jaxtyping import Float

from cir_core.errors import PreflightError
from cir_core.protocols import RecallOn
from cir_core.types import Query

DIGITS = 9
"""Significant digits that tell any two fp32 numbers apart; trec_eval keeps scores as fp32."""


def run_lines(
    query_id: str, images: Sequence[str], scores: Float[np.ndarray, " image"], tag: str
) -> Iterator[str]:
    """``qid Q0 docid rank score tag`` for one query's ranking, best first.

    The score column is strictly decreasing, see ``parted``, so sorting by it gives this order
    whatever a tool does with ties. Raises PreflightError for an empty id.
    """
    name = escaped(query_id)
    for rank, (image, score) in enumerate(zip(images, parted(scores), strict=True), start=1):
        yield f"{name} Q0 {escaped(image)} {rank} {score:.{DIGITS}g} {tag}\n"


def qrel_lines(queries: Iterable[Query], recall_on: RecallOn) -> Iterator[str]:
    """``qid 0 docid relevance``: 1 for every target. Where recall counts the first target alone,
    that one has 2. Queries without label give no line."""
    for query in queries:
        for place, target in enumerate(query.targets):
            relevance = 2 if recall_on == "first" and place == 0 else 1
            yield f"{escaped(query.query_id)} 0 {escaped(target)} {relevance}\n"


def parted(scores: Float[np.ndarray, " image"]) -> Float[np.ndarray, " image"]:
    """fp32 scores in the order of their ranks, each below the one before.

    A score that is not lower already (a tie) becomes the next lower fp32 number. So scores that
    differ stay as they are, unless a longer run of ties before them reaches them.
    """
    lowered = np.asarray(scores, dtype=np.float32).copy()
    if np.all(lowered[1:] < lowered[:-1]):
        return lowered
    for row in range(1, len(lowered)):
        lowered[row] = min(lowered[row], np.nextafter(lowered[row - 1], np.float32(-np.inf)))
    return lowered


@lru_cache(2**16)  # of a run's rankings, images repeat
def escaped(identifier: str) -> str:
    """An id as one column: white space, control characters and ``%`` as ``%XX`` of their UTF-8.

    Ids without these stay as they are; ``unescaped`` gives every id back. Raises PreflightError
    for an empty id, which no column can hold.
    """
    if not identifier:
        raise PreflightError(
            "an empty id cannot be written in TREC's format",
            cause="its columns are separated by white space",
            remedy="give the image or query an id, or export as jsonl or parquet",
        )
    return "".join(quote(char, safe="") if _breaks_columns(char) else char for char in identifier)


def unescaped(column: str) -> str:
    """The id that ``escaped`` wrote."""
    return unquote(column)


def _breaks_columns(char: str) -> bool:
    return char == "%" or char.isspace() or unicodedata.category(char) == "Cc"
