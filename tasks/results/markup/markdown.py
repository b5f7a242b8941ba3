"""Text that is no Markdown and no HTML, and tables of it."""

import re
from collections.abc import Iterable, Iterator, Sequence

from tasks.results.markup.visible import visible

_MEANT = re.compile(r"[\\`*_{}\[\]<>&|~#$]|:(?=//)|(?<=www)\.")
"""The last two are of addresses, which would be links."""


def as_markdown(text: str) -> str:
    """What renders as the text, within a line or a table's cell: signs of Markdown and HTML are
    told by their numbers, which every dialect takes for themselves; control characters are visible
    escapes. (GitHub makes links of e-mail addresses, however they are written.)"""
    return _MEANT.sub(lambda sign: f"&#{ord(sign.group())};", visible(text))


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a table, of texts."""
    return f"| {' | '.join(map(as_markdown, cells))} |"


def markdown_table(
    headings: Sequence[str], rows: Iterable[Iterable[str]], *, left: int | None = None
) -> Iterator[str]:
    """A table's lines. The first ``left`` columns (None: all) hold words, the others numbers."""
    left = len(headings) if left is None else left
    yield markdown_row(headings)
    yield f"|{' --- |' * left}{' ---: |' * (len(headings) - left)}"
    yield from map(markdown_row, rows)
