"""Columns of large table files: read whole, never row by row."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cir_core.datasets.row_faults import shown
from cir_core.errors import AnnotationError, PreflightError

Aliases = Mapping[str, Sequence[str]]
"""The names by which each column may be called, its own first."""


def read_bytes(path: Path, what: str) -> pa.Buffer:
    """A file's bytes, in Arrow's own memory (see ``storage.tables``). Raises PreflightError when it
    is missing or cannot be read."""
    try:
        with path.open("rb") as file:
            content = pa.allocate_buffer(os.fstat(file.fileno()).st_size)
            file.readinto(memoryview(content))
    except OSError as error:
        raise PreflightError(
            f"{what} cannot be read",
            item=str(path),
            cause=str(error.strerror),
            remedy="name the file that holds them; docs/first-stages.md tells what is expected",
        ) from error
    return content


def read_parquet(content: pa.Buffer, path: Path, aliases: Aliases) -> tuple[pa.Table, list[str]]:
    """The columns of these names, called by their own ones, and the names of all others.

    Raises AnnotationError for what is no Parquet, and for a column that is not there, or twice.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = file.schema_arrow.names
        found = _found(names, aliases, path)
        table = file.read(columns=list(found.values()), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise AnnotationError(
            "a file is not Parquet that can be read",
            item=str(path),
            cause=str(error),
            remedy="write it again; docs/first-stages.md tells which columns it has",
        ) from error
    others = [name for name in names if name not in found.values()]
    return table.select(list(found.values())).rename_columns(list(found)), others


def _found(names: Sequence[str], aliases: Aliases, path: Path) -> dict[str, str]:
    there = {name: [one for one in names if one in known] for name, known in aliases.items()}
    faults = [
        f"there is no column {' or '.join(map(repr, aliases[name]))}"
        if not mine
        else f"{' and '.join(map(repr, mine))} are both there"
        for name, mine in there.items()
        if len(mine) != 1
    ]
    if faults:
        raise AnnotationError(
            "a file lacks columns",
            item=str(path),
            cause=f"{'; '.join(faults)}; found: {', '.join(map(shown, names)) or 'none'}",
            remedy="docs/first-stages.md tells which columns it has",
        )
    return {name: mine[0] for name, mine in there.items()}


def as_texts(column: pa.ChunkedArray) -> pa.DictionaryArray | None:
    """A column of ids, each distinct one once; None where it is none of UTF-8 texts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    coded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
    try:  # Arrow does not check what others wrote
        texts = coded.dictionary.cast(pa.large_binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return None
    return pa.DictionaryArray.from_arrays(coded.indices, texts)
