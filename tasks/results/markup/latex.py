"""Text that is no LaTeX, and tables of it."""

import re
from collections.abc import Iterable, Iterator, Sequence

from tasks.results.markup.visible import visible

NEEDS = r"% needs \usepackage{booktabs,textcomp} and \usepackage[T1]{fontenc}"

_MEANT = re.compile(r"[\\{}$&#%_^~<>\-|\"'`\[\]]")
_WRITTEN = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "-": "{-}",
    "[": "{[}",
    "]": "{]}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
}
"""Hyphens and quotes stand alone: two of them would be another sign. A bracket that begins a row of
a table would be an option of the command before it."""

_SIGNS = {
    "{-}": "$-$",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "\N{EN DASH}": "--",
    "\N{INFINITY}": r"$\infty$",
}
"""Of cells of numbers, once they are LaTeX."""


def as_latex(text: str) -> str:
    """What is set as the text, within a line or a table's cell, with T1 fonts and UTF-8; control
    characters are visible escapes."""
    return _MEANT.sub(lambda sign: _WRITTEN.get(sign.group(), f"\\{sign.group()}"), visible(text))


def latex_row(cells: Iterable[str]) -> str:
    """A row of a table, of LaTeX."""
    return f"{' & '.join(cells)} \\\\"


def tabular(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> Iterator[str]:
    """A table's lines, of texts. The first ``left`` columns hold words, which are set as they are,
    the others numbers, which have signs of mathematics."""
    yield f"\\begin{{tabular}}{{{'l' * left}{'r' * (len(headings) - left)}}}"
    yield r"\toprule"
    yield latex_row(_told(headings, left))
    yield r"\midrule"
    yield from (latex_row(_told(row, left)) for row in rows)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _told(texts: Sequence[str], left: int) -> list[str]:
    words, numbers = map(as_latex, texts[:left]), [as_latex(text) for text in texts[left:]]
    for sign, command in _SIGNS.items():
        numbers = [text.replace(sign, command) for text in numbers]
    return [*words, *numbers]
