"""Tables and lines, drawn by rich. Data is never taken for markup, and never cut."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import zip_longest

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.views.streams import write
from tasks.results.markup.visible import visible

__all__ = [
    "Cell",
    "Column",
    "Console",
    "open_console",
    "print_line",
    "print_lines",
    "print_table",
    "print_texts",
]

NARROWEST = 8
"""Characters a column is folded to, at least: below, a table is read more easily when the terminal
wraps its lines."""
BORDERS = 3
"""Characters beside a cell's own."""

Cell = str | tuple[str, str]
"""A text, or a text and its style."""


@dataclass(frozen=True)
class Column:
    """``whole`` cells are never folded: names to copy."""

    heading: str
    right: bool = False
    whole: bool = False
    footer: str = ""


def open_console() -> Console:
    """Of stdout."""
    return Console(markup=False, highlight=False, emoji=False)


def print_table(
    console: Console,
    columns: Sequence[Column],
    rows: Iterable[Iterable[Cell]],
    *,
    title: Cell = "",
    section_by: int | None = None,
) -> None:
    """Each row on one line, as wide as it needs; on a terminal that is too narrow, cells are
    folded. ``section_by``: a line is drawn where the cell of this column changes. The title is
    above, in italics or its own style."""
    texts = [[_text(console, cell) for cell in row] for row in rows]
    heads = [(_text(console, one.heading), _text(console, one.footer)) for one in columns]
    needed = [
        max(_width(text) for text in (*head, *(row[place] for row in texts)))
        for place, head in enumerate(heads)
    ]
    folds = console.file.isatty() and _fits(needed, columns, console.width)
    table = Table(show_footer=any(one.footer for one in columns))
    for column, (heading, footer), width in zip(columns, heads, needed, strict=True):
        whole = column.whole or not folds
        table.add_column(
            heading,
            footer,
            justify="right" if column.right else "left",
            min_width=width if whole else min(width, NARROWEST),
            no_wrap=whole,
            overflow="fold",
        )
    for row, following in zip_longest(texts, texts[1:]):
        ends = section_by is not None and (
            following is None or following[section_by] != row[section_by]
        )
        table.add_row(*row, end_section=ends)
    if title:
        text, style = title if isinstance(title, tuple) else (title, "italic")
        print_line(console, text, style)
    width = console.width if folds else sum(needed) + BORDERS * len(needed) + 1
    page = _page(console, width)
    page.print(table, crop=False)
    _put(page, console)


def print_line(console: Console, text: str, style: str = "") -> None:
    """A line, whose line breaks are escapes: they are data's. A terminal wraps what is too long."""
    page = _page(console, console.width)
    page.print(_text(console, (text, style)), soft_wrap=True)
    _put(page, console)


def print_lines(console: Console, text: str) -> None:
    """A text of ours, with its line breaks."""
    for line in text.split("\n"):
        print_line(console, line)


def print_texts(console: Console, lines: Iterable[Text]) -> None:
    """Lines with their own styles, which a terminal that is too narrow cuts."""
    page = _page(console, console.width)
    for line in lines:
        page.print(line, no_wrap=True, overflow="crop")
    _put(page, console)


def _width(text: Text) -> int:
    """In a terminal's cells; a text of signs that take none is not left out for that."""
    return text.cell_len or len(text.plain[:1])


class _Drawn(StringIO):
    """Rich draws with what its file can hold."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # None of any StringIO
        return self._encoding


def _page(console: Console, width: int) -> Console:
    """Draws as the console would, but in memory: what cannot be written is then ``write``'s to
    tell, where a console flushes its file by itself, and fails."""
    system = console.color_system
    return Console(
        file=_Drawn(console.encoding),
        width=width,
        color_system=system,  # type: ignore[arg-type]  # the name of one
        no_color=console.no_color,
        force_terminal=console.is_terminal,
        markup=False,
        highlight=False,
        emoji=False,
    )


def _put(page: Console, console: Console) -> None:
    assert isinstance(page.file, _Drawn)
    write(page.file.getvalue(), console.file)


def _text(console: Console, cell: Cell) -> Text:
    text, style = cell if isinstance(cell, tuple) else (cell, "")
    return Text(visible(text, encoding=console.encoding), style)


def _fits(needed: Sequence[int], columns: Sequence[Column], width: int) -> bool:
    """Whether folding cells makes a table of this width."""
    least = [
        one if column.whole else min(one, NARROWEST)
        for one, column in zip(needed, columns, strict=True)
    ]
    return sum(least) + BORDERS * len(least) + 1 <= width
