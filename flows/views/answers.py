"""Answers of SQL: as a table for eyes, or row by row in forms that keep every value."""

import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

from flows.views.streams import expect_utf8, say, write
from flows.views.tables import Column, open_console, print_table
from flows.views.values import cell, csv_cell, csv_line, json_text
from storage.answers import Answer, told_apart
from storage.atomic import commit
from tasks.results.markup.markdown import markdown_table
from tasks.results.markup.visible import visible

TABLE_ROWS = 1000
"""A table is drawn when all its rows are there: more are no longer for eyes."""


def print_answer(answer: Answer, form: str, limit: int | None) -> None:
    """To stdout, in a form of ``LINES``, or as a ``table``."""
    if form == "table":
        print_rows(answer, limit)
        return
    is_seen = sys.stdout.isatty()
    expect_utf8()
    for line in LINES[form](answer, limit):
        write(visible(line, kept="\n") if is_seen else line)


def save_answer(answer: Answer, form: str, limit: int | None, file: Path) -> None:
    """Into a file, whole or not at all, as UTF-8. Raises as ``commit``."""

    def save(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as lines:
            lines.writelines(LINES[form](answer, limit))

    commit(file, save)


def print_rows(answer: Answer, limit: int | None) -> None:
    """A table, of ``TABLE_ROWS`` at most without a limit; what is left out is told on stderr."""
    most = limit or TABLE_ROWS
    rows = answer.fetch(most + 1)
    shown = [map(cell, row) for row in rows[:most]]
    print_table(open_console(), list(map(Column, answer.columns)), shown)
    if len(rows) > most:
        say(f"the first {most:,} rows; there are more: --limit N, or --csv for all")


def csv_lines(answer: Answer, limit: int | None) -> Iterator[str]:
    """With a heading; a column of a name that was there before gets a suffix."""
    return map(csv_line, chain([told_apart(answer.columns)], islice(answer.rows, limit)))


def json_lines(answer: Answer, limit: int | None) -> Iterator[str]:
    """A list of objects, one a line; columns as in CSV."""
    before = "["
    for line in jsonl_lines(answer, limit):
        yield before + line.rstrip("\n")
        before = ",\n"
    yield "[]\n" if before == "[" else "]\n"


def jsonl_lines(answer: Answer, limit: int | None) -> Iterator[str]:
    """An object a line, and nothing else."""
    names = told_apart(answer.columns)
    for row in islice(answer.rows, limit):
        yield json_text(dict(zip(names, row, strict=True))) + "\n"


def markdown_lines(answer: Answer, limit: int | None) -> Iterator[str]:
    """A table of GitHub's Markdown; values as in CSV, without quotes: NULL looks like an empty
    text, and control characters are escapes."""
    if not answer.columns:
        return
    rows = (map(csv_cell, row) for row in islice(answer.rows, limit))
    yield from (f"{line}\n" for line in markdown_table(answer.columns, rows))


LINES: Mapping[str, Callable[[Answer, int | None], Iterator[str]]] = {
    "csv": csv_lines,
    "json": json_lines,
    "jsonl": jsonl_lines,
    "markdown": markdown_lines,
}
