"""What an analysis says: to the terminal, the report and JSON alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from storage.answers import OpenCatalog

Row = Mapping[str, Any]

Form = Literal["text", "query", "image", "percent", "gain", "interval", "count", "number"]
"""How a table tells a value; see ``Column``."""

WORDS = "text", "query", "image"
"""Forms of a column that holds words; in the others are numbers."""

SMALL_CATEGORY = 30
"""Queries or targets below which a category's shares say little: one of them is 3 points."""


def small_marked(categories: Sequence[Row]) -> list[Row]:
    """Rows of categories, which have their ``n``, with ``is_small``."""
    return [{**row, "is_small": row["n"] < SMALL_CATEGORY} for row in categories]


@dataclass(frozen=True)
class Column:
    """Of a table: the field of its rows, its heading, and how a value is told.

    ``query`` and ``image`` are ids; ``percent`` and ``gain`` (with its sign) take fractions,
    ``interval`` a pair of them, a gain's; ``count`` a whole number, ``number`` any other.
    """

    field: str
    heading: str
    form: Form = "text"


class Answered(TypedDict):
    """Of a table or a figure: its rows, and the statement that has given them."""

    rows: Sequence[Row]
    sql: str


def asked(catalog: OpenCatalog, sql: str) -> Answered:
    """``Numbers(title, columns, **asked(catalog, sql))``, and a figure alike. Raises as ``ask``."""
    return {"rows": catalog.rows(sql), "sql": sql}


@dataclass(frozen=True)
class Numbers:
    """A table of an analysis; ``sql`` gives its rows anew. Rows whose field ``is_small`` is true
    rest on few queries, and are marked."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    sql: str


@dataclass(frozen=True)
class Figure:
    """A chart: ``rows`` have the fields ``x`` and ``y``, and perhaps ``series`` (one line, or one
    colour, each) and ``low`` and ``high`` (a band). ``rules`` are vertical lines, by their words.

    ``histogram`` rows are bins: ``x`` to ``x2``, of height ``y``. ``bars`` have names for ``x``.
    Bars of several series stand beside each other, or, where these share a whole, are stacked. A
    scatter's points may stand for several, field ``n``; where both axes are ranks, which begin at
    1, they are logarithmic, with the diagonal on which nothing moves.
    ``described`` says in words what it shows, for who cannot see it.
    """

    kind: Literal["line", "scatter", "histogram", "bars"]
    x: str
    y: str
    rows: Sequence[Row]
    sql: str
    described: str
    rules: Mapping[str, float] | None = None
    is_percent: bool = False
    is_stacked: bool = False
    are_ranks: bool = False


@dataclass(frozen=True)
class Analysis:
    """A question, answered for one run in plain words; then what to do about it, figures, numbers.

    ``missing`` says what lacks for an answer, and the command that makes it; then there is none.
    """

    name: str
    question: str
    answer: str = ""
    advice: str = ""
    figures: Sequence[Figure] = ()
    numbers: Sequence[Numbers] = ()
    missing: str = ""
