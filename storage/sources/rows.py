"""Table files of a user's own: CSV, JSONL and Parquet as rows that know their place."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cir_core.errors import AnnotationError
from cir_core.types import Row, Rows

LONGEST_VALUE = 10_000_000
"""Characters of one CSV value. Python's own limit, 131,072, is below what other formats take."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_rows(content: bytes, path: Path) -> Rows:
    """The rows in the bytes of a ``.csv``, ``.jsonl`` or ``.parquet`` file, as ``path`` says.

    An entry that cannot be read (broken quoting, malformed JSON, another number of values than the
    header) is a row with a fault, so that all can be told at once. Blank lines are none, nor are
    those of commas alone; columns without a name are dropped where they are empty: spreadsheets
    leave both. Values are as written: text stays text, whatever it looks like. Raises
    AnnotationError when the file as a whole is unreadable, UTF-16, or names a column twice.
    """
    return TABLES[path.suffix.lower()](content, path)


def _read_csv(content: bytes, path: Path) -> Rows:
    csv.field_size_limit(LONGEST_VALUE)
    reader = csv.reader(io.StringIO(_text(content, path), newline=""), strict=True)
    header: tuple[str, ...] | None = None
    entries = []
    for place, cells, fault in _csv_lines(reader):
        if header is None and not fault:
            header = _distinct(cells, path)
        else:
            entries.append(Row(place, {}, fault) if fault else _csv_row(place, header or (), cells))
    return Rows(tuple(filter(None, header or ())), tuple(entries))


def _csv_row(place: str, header: Sequence[str], cells: Sequence[str]) -> Row:
    """Right of the header there may be empty cells, which a spreadsheet writes."""
    if len(cells) < len(header) or any(cells[len(header) :]):
        return Row(place, {}, f"has {len(cells)} values, and the header {len(header)}")
    return _row(place, header, cells[: len(header)])


def _row(place: str, names: Sequence[str], values: Sequence[Any]) -> Row:
    """Under no name there must be no value."""
    for number, (name, value) in enumerate(zip(names, values, strict=True), start=1):
        if not name and value not in ("", None):
            told = f"has a value in column {number}, which has no name: {value!r}"
            return Row(place, {}, told)
    return Row(place, {name: value for name, value in zip(names, values, strict=True) if name})


def _csv_lines(reader: Any) -> Iterator[tuple[str, list[str], str]]:
    """Each row with the line on which it begins (quoted values may span lines)."""
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, [], f"is not CSV: {error}"
        else:
            if any(cells):
                yield place, cells, ""


def _read_jsonl(content: bytes, path: Path) -> Rows:
    entries = tuple(
        _json_row(f"line {number}", line)
        for number, line in enumerate(_text(content, path).split("\n"), start=1)
        if line.strip()
    )
    columns = dict.fromkeys(name for row in entries for name in row.values)
    return Rows(tuple(columns), entries)


def _json_row(place: str, line: str) -> Row:
    try:
        values = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return Row(place, {}, f"is not JSON: {error}")
    if not isinstance(values, dict):
        return Row(place, {}, f"is a JSON {type(values).__name__}, not an object")
    return Row(place, values)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values under one name, Python would keep the second without a word."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name is given twice")
    return values


def _read_parquet(content: bytes, path: Path) -> Rows:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))  # also with a column twice
        table = file.read(use_threads=False)  # none of which then outlives Python's bytes
        names = _distinct(table.column_names, path)
        columns = [_values(column) for column in table.columns]
    except (pa.ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        raise AnnotationError(
            "a table file is not Parquet that can be read",
            item=str(path),
            cause=str(error),
            remedy="write it again, with text columns",
        ) from error
    entries = tuple(
        _row(f"row {number}", names, values)
        for number, values in enumerate(zip(*columns, strict=True), start=1)
    )
    return Rows(tuple(filter(None, names)), entries)


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return list(column.to_pylist())
    raw = column.cast(pa.large_binary()).to_pylist()  # Arrow does not check what others wrote
    return [None if value is None else value.decode(errors="surrogateescape") for value in raw]


def _text(content: bytes, path: Path) -> str:
    """UTF-8, with or without a byte order mark; bytes that are no text become surrogates."""
    if content.startswith(_UTF16):
        raise AnnotationError(
            "a table file is UTF-16", item=str(path), remedy='save it as UTF-8 ("CSV UTF-8")'
        )
    return content.decode("utf-8-sig", errors="surrogateescape")


def _distinct(names: list[str], path: Path) -> tuple[str, ...]:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise AnnotationError(
            "a table file names a column twice", item=str(path), cause=", ".join(map(ascii, twice))
        )
    return tuple(names)


TABLES: dict[str, Callable[[bytes, Path], Rows]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
"""Readers by the end of a file's name."""
