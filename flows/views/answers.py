"""Answers of SQL: as a table, or row by row as CSV or JSON."""

import sys
from itertools import chain, islice

from flows.views.streams import expect_utf8, say, write
from flows.views.tables import Column, open_console, print_table
from flows.views.values import cell, csv_line, json_text, told_apart
from storage.answers import Answer
from tasks.results.markup.visible import visible

TABLE_ROWS = 1000
"""A table is drawn when all its rows are there: more are no longer for eyes."""


def print_rows(answer: Answer, limit: int | None) -> None:
    """A table, of ``TABLE_ROWS`` at most without a limit; what is left out is told on stderr."""
    most = limit or TABLE_ROWS
    rows = answer.fetch(most + 1)
    shown = [map(cell, row) for row in rows[:most]]
    print_table(open_console(), list(map(Column, answer.columns)), shown)
    if len(rows) > most:
        say(f"the first {most:,} rows; there are more: --limit N, or --csv for all")


def print_csv(answer: Answer, limit: int | None) -> None:
    """As UTF-8, with a heading; a column of a name that was there before gets a suffix."""
    is_seen = sys.stdout.isatty()
    expect_utf8()
    for row in chain([told_apart(answer.columns)], islice(answer.rows, limit)):
        line = csv_line(row)
        write(visible(line, kept="\n") if is_seen else line)


def print_json(answer: Answer, limit: int | None) -> None:
    """A list of objects, one a line; columns as in CSV."""
    names, before = told_apart(answer.columns), "["
    for row in islice(answer.rows, limit):
        write(before + json_text(dict(zip(names, row, strict=True))))
        before = ",\n"
    write("[]\n" if before == "[" else "]\n")
