"""Parquet in and out: checksummed pages, layouts that suit each column. And JSON lines, out."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cir_core.errors import StoreCorrupt
from cir_core.submissions.formats import compact_json
from storage.atomic import disk_errors
from storage.schemas import bare

BATCH = 20_000
"""Rows turned into text at a time."""

ROWS_AT_ONCE = 100_000
"""Rows that share an array of strings."""


def write_table(path: Path, table: pa.Table) -> None:
    """zstd; vectors byte-split and without dictionary; page checksums, since a flipped bit in a
    data page is otherwise read silently."""
    table = pa.Table.from_arrays(table.columns, schema=bare(table.schema))
    vectors = [f"{field.name}.list.element" for field in table.schema if _is_vector(field.type)]
    blobs = [field.name for field in table.schema if pa.types.is_binary(field.type)]
    plain = [
        field.name
        for field in table.schema
        if not _is_vector(field.type) and not pa.types.is_binary(field.type)
    ]
    pq.write_table(
        table,
        path.absolute(),  # of a relative one, Arrow expands ~, and takes run:3 for a URI
        compression={**dict.fromkeys([*plain, *vectors], "zstd"), **dict.fromkeys(blobs, "none")},
        use_dictionary=[name for name in plain if _repeats(table.schema.field(name).type)],
        column_encoding=dict.fromkeys(vectors, "BYTE_STREAM_SPLIT") or None,
        write_page_checksum=True,
    )


def read_table(path: Path, columns: Sequence[str] | None = None, *, sha256: str) -> pa.Table:
    """All columns, or these, of a file with these bytes.

    The bytes that are parsed are those that were hashed. Raises StoreCorrupt when they are others,
    or when the file is missing or cannot be read, and as ``disk_errors``.
    """
    try:
        with disk_errors(path):
            content = _content(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise damaged(path, "its bytes are not those that were written")
        return pq.ParquetFile(pa.BufferReader(content)).read(columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise damaged(path, str(error)) from error


def _content(path: Path) -> pa.Buffer:
    """In Arrow's own memory: one of its threads may be the last to let go of it, and giving back
    Python's memory while the interpreter ends would abort the process."""
    with path.open("rb") as file:
        content = pa.allocate_buffer(os.fstat(file.fileno()).st_size)
        file.readinto(memoryview(content))
    return content


def damaged(part: Path | str, cause: str) -> StoreCorrupt:
    """The error of a part that cannot be read."""
    return StoreCorrupt(
        "a part of the store is damaged",
        item=str(part),
        cause=cause,
        remedy="repeat the command that made it (cir-pipeline run): damaged parts are made anew",
    )


def write_jsonl(path: Path, table: pa.Table) -> None:
    """A JSON object per row, one a line, in ASCII (see ``compact_json``). Columns hold texts,
    numbers and nulls."""
    with path.open("wb") as file:
        for batch in table.to_batches(max_chunksize=BATCH):
            if batch.num_rows:
                file.write(_json_lines(batch))


def _json_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """Of at least one row and column: in Arrow's memory the texts of an array, here the lines, are
    one after the other."""
    pieces = list[pa.LargeStringArray | pa.LargeStringScalar]()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        before = "," if pieces else "{"
        pieces += [_large(f"{before}{compact_json(name)}:"), _as_json(column)]
    lines = pc.binary_join_element_wise(*pieces, _large("}\n"), _large(""))
    _, _, content = lines.buffers()
    return content


def _as_json(column: pa.Array) -> pa.LargeStringArray:
    """Each value by itself; a text that repeats is written once. Raises TypeError for values that
    have values."""
    if pa.types.is_string(column.type):
        known = column.dictionary_encode()
        texts = pa.array(map(compact_json, known.dictionary.to_pylist()), pa.large_string())
        return pc.fill_null(texts.take(known.indices), "null")
    if not pa.types.is_primitive(column.type) and not pa.types.is_null(column.type):
        raise TypeError(f"{column.type} is not written as JSON")
    return pa.array(compact_json(column.to_pylist())[1:-1].split(","), pa.large_string())


def _large(text: str) -> pa.LargeStringScalar:
    """Of lines of any length: those of a batch may be more than 2 GB."""
    return pa.scalar(text, pa.large_string())


def vectors_of(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A fixed-size-list column as a matrix [row, width]; the only copy that is made."""
    matrix = np.empty((len(column), column.type.list_size), dtype=np.float32)
    start = 0
    for chunk in column.chunks:
        flat = chunk.flatten().to_numpy(zero_copy_only=False)
        matrix[start : start + len(chunk)] = flat.reshape(-1, matrix.shape[1])
        start += len(chunk)
    return matrix


def vector_column(matrix: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """A matrix [row, width] as a fixed-size-list column."""
    flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).ravel(), type=pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def rows_of(values: pa.ChunkedArray | pa.Array, among: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each value stands among the others, the first place counting; -1 where it does not."""
    places = pc.index_in(values, value_set=among.combine_chunks())
    rows: NDArray[np.int64] = pc.fill_null(places, -1).cast(pa.int64()).to_numpy()
    return rows


def taken(
    column: pa.ChunkedArray, rows: NDArray[np.int64], *, at_once: int = ROWS_AT_ONCE
) -> pa.ChunkedArray:
    """The values at these rows, in arrays of so many: a text, or bytes, are repeated as often as
    they are taken, and one array of them holds 2 GiB at most."""
    values = column.combine_chunks()
    starts = range(0, len(rows), at_once)
    parts = [values.take(pa.array(rows[start : start + at_once])) for start in starts]
    return pa.chunked_array(parts, type=column.type)


def rows_taken(table: pa.Table, rows: NDArray[np.int64], *, at_once: int) -> pa.Table:
    """These rows, column by column as ``taken``."""
    columns = [taken(column, rows, at_once=at_once) for column in table.columns]
    return pa.table(columns, schema=table.schema)


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def _repeats(kind: pa.DataType) -> bool:
    """Ids and words repeat, and a dictionary pays; scores do not."""
    return bool(pa.types.is_string(kind))
