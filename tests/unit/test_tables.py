"""Tables come back from Parquet as they went in, and a damaged page is noticed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cir_core.errors import StoreCorrupt
from storage import schemas, tables, views
from storage.atomic import sha256_of
from storage.tables import (
    read_table,
    rows_of,
    rows_taken,
    taken,
    vector_column,
    vectors_of,
    write_jsonl,
    write_table,
)
from storage.view import View

HOSTILE = ["it's", 'a "quoted" one', "two\nlines", "tab\there", "👗 e\u0301", "", "00012", "a,b;c"]
WIDTH = 3
EXTREME = np.array(
    [[0.1, -0.0, 1e-45], [3.4028235e38, np.inf, -1.5], [np.nan, 1 / 3, 7.0]], dtype=np.float32
)

SCHEMAS = {
    "images": schemas.IMAGES,
    "gallery": schemas.GALLERY,
    "categories": schemas.CATEGORIES,
    "queries": schemas.QUERIES,
    "problems": schemas.PROBLEMS,
    "candidates": schemas.CANDIDATES,
    "targets": schemas.TARGET_RANKS,
    "scores": schemas.SCORES,
    "rankings": schemas.RANKINGS,
    "metrics": schemas.METRICS,
    "galleries": schemas.GALLERIES,
    "export": schemas.EXPORT,
    "calibration": schemas.CALIBRATION,
    "thresholds": schemas.THRESHOLDS,
    "probes": schemas.PROBES,
    "dropped pairs": schemas.DROPPED_PAIRS,
    "fusion curve": schemas.FUSION_CURVE,
    "embeddings": schemas.of_width(schemas.EMBEDDINGS, WIDTH),
    "query embeddings": schemas.of_width(schemas.QUERY_EMBEDDINGS, WIDTH),
    "fused": schemas.of_width(schemas.FUSED_QUERIES, WIDTH),
}


def example(kind: pa.DataType, row: int) -> Any:
    """A value of a column's type, different in each row."""
    if pa.types.is_string(kind):
        return HOSTILE[row % len(HOSTILE)]
    if pa.types.is_boolean(kind):
        return row % 2 == 0
    if pa.types.is_integer(kind):
        return [0, 2**31 - 1, -(2**31)][row % 3]
    if pa.types.is_floating(kind):
        return [0.5, -0.0, 1.25e-30][row % 3] * (row + 1)
    if pa.types.is_binary(kind):
        return bytes([0, row, 255]) * row
    is_fixed = pa.types.is_fixed_size_list(kind)
    assert is_fixed or pa.types.is_list(kind)
    size = kind.list_size if is_fixed else row % 4
    return [example(kind.value_type, row + index) for index in range(size)]


def filled(schema: pa.Schema, rows: int) -> pa.Table:
    content = [
        {
            field.name: None if field.nullable and row % 3 == 2 else example(field.type, row)
            for field in schema
        }
        for row in range(rows)
    ]
    return pa.Table.from_pylist(content, schema)


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A file's table, its bytes being what they should."""
    return read_table(path, columns, sha256=sha256_of(path))


def test_every_schema_of_the_store_is_tried_here() -> None:
    kinds = [one for one in vars(views).values() if isinstance(one, type) and issubclass(one, View)]
    declared = {schema for view in kinds for schema in view.holds.values() if schema.names}
    tried = [schema.names for schema in SCHEMAS.values()]
    assert len(declared) > 9
    assert all(schema.names in tried for schema in declared)


@pytest.mark.parametrize("rows", [0, 1, 20])
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_comes_back_as_it_went_in(tmp_path: Path, name: str, rows: int) -> None:
    table = filled(SCHEMAS[name], rows)
    write_table(tmp_path / "x.parquet", table)
    found = read(tmp_path / "x.parquet")
    assert found.schema == table.schema
    assert found.to_pylist() == table.to_pylist()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_same_table_is_the_same_bytes(tmp_path: Path, name: str) -> None:
    for file in ("a", "b"):
        write_table(tmp_path / file, filled(SCHEMAS[name], 20))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("at_once", [7, 10_000])
@pytest.mark.parametrize("name", ["candidates", "export", "metrics", "problems", "scores"])
def test_json_lines_are_those_of_pythons_json_row_by_row(
    tmp_path: Path, name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BATCH", at_once)
    schema = SCHEMAS[name]
    numbers = [
        [(row - 20) * 10.0 ** (row - 20), np.nan, np.inf, 1e16, 1 / 3][row % 5] for row in range(40)
    ]
    drawn = {
        field.name: pa.array(numbers, field.type)
        if pa.types.is_floating(field.type)
        else filled(schema, 40)[field.name].combine_chunks()
        for field in schema
    }
    table = pa.concat_tables([schema.empty_table(), pa.table(drawn, schema), filled(schema, 3)])
    write_jsonl(tmp_path / "x.jsonl", table)
    told = [json.dumps(row, separators=(",", ":")) + "\n" for row in table.to_pylist()]
    assert (tmp_path / "x.jsonl").read_bytes() == "".join(told).encode("ascii")
    write_jsonl(tmp_path / "none.jsonl", schema.empty_table())
    assert (tmp_path / "none.jsonl").read_bytes() == b""


@pytest.mark.parametrize("name", SCHEMAS)
def test_duckdb_reads_what_was_written(tmp_path: Path, name: str) -> None:
    table = filled(SCHEMAS[name], 20)
    write_table(tmp_path / "x.parquet", table)
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT * FROM read_parquet(?)", [str(tmp_path / "x.parquet")]
        ).fetchall()
    assert [_plain(row) for row in rows] == [_plain(row.values()) for row in table.to_pylist()]


def _plain(values: Any) -> list[Any]:
    return [list(value) if isinstance(value, tuple) else value for value in values]


def test_vectors_are_fixed_size_lists_kept_to_the_bit(tmp_path: Path) -> None:
    ids = ["a", "b", "c"]
    table = pa.table(
        [ids, vector_column(EXTREME)], schema=schemas.of_width(schemas.EMBEDDINGS, WIDTH)
    )
    write_table(tmp_path / "x.parquet", table)
    column = read(tmp_path / "x.parquet")["embedding"]
    assert column.type == pa.list_(pa.float32(), WIDTH)
    assert vectors_of(column).tobytes() == EXTREME.tobytes()


def test_vectors_of_several_parts_and_of_a_slice_keep_their_rows() -> None:
    parts = [pa.table({"v": vector_column(EXTREME[:1])}), pa.table({"v": vector_column(EXTREME)})]
    column = pa.concat_tables(parts)["v"]
    wanted = np.concatenate([EXTREME[:1], EXTREME])
    assert vectors_of(column).tobytes() == wanted.tobytes()
    assert vectors_of(column.slice(1, 2)).tobytes() == EXTREME[:2].tobytes()


def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", filled(schemas.CANDIDATES, 3))
    names = ["stage1_score", "query_id"]
    assert set(read(tmp_path / "x.parquet", names).column_names) == set(names)


def test_what_is_read_is_in_arrows_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads may outlive the interpreter, and could not give Python's memory back then."""
    path, held = tmp_path / "t.parquet", []
    write_table(path, pa.table({"text": ["x" * 100_000]}))
    sha256, before = sha256_of(path), pa.total_allocated_bytes()

    class Noted(pq.ParquetFile):  # type: ignore[misc]
        def read(self, *arguments: Any) -> pa.Table:
            held.append(pa.total_allocated_bytes() - before)
            return super().read(*arguments)

    monkeypatch.setattr("storage.tables.pq.ParquetFile", Noted)
    assert read_table(path, sha256=sha256).num_rows == 1
    assert held[0] >= path.stat().st_size


def test_rows_of_values_are_their_first_places() -> None:
    among = pa.chunked_array([["a", "b"], [], ["c", "b"]])
    values = pa.chunked_array([["c", "b"], ["x", "a"]], pa.string())
    assert rows_of(values, among).tolist() == [2, 1, -1, 0]
    assert rows_of(among.slice(0, 0), among).tolist() == []
    assert rows_of(values, among.slice(0, 0)).tolist() == [-1] * 4


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_taken_values_are_those_at_the_rows(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", at_once)
    column = pa.chunked_array([["a"], ["b", "c"]])
    for rows in ([], [2, 0, 2, 1, 1]):
        found = taken(column, np.array(rows, dtype=np.int64))
        assert found.type == pa.string()
        assert found.to_pylist() == ["abc"[row] for row in rows]


def test_no_vectors_are_a_matrix_without_rows() -> None:
    assert vectors_of(schemas.of_width(schemas.EMBEDDINGS, 5).empty_table()["embedding"]).shape == (
        0,
        5,
    )


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    """In a page, which Parquet's own checksums would tell, and in the footer, where one can drop
    rows without a word."""
    path = tmp_path / "x.parquet"
    table = filled(schemas.RANKINGS, 50)
    write_table(path, table)
    good, digest = path.read_bytes(), sha256_of(path)
    for place in range(0, len(good), 37):
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(StoreCorrupt) as caught:
            read_table(path, sha256=digest)
        assert caught.value.exit_code == 6
        assert caught.value.item == str(path)
    path.write_bytes(good)
    assert read_table(path, sha256=digest).equals(table)


@pytest.mark.parametrize("kept", [0, 1, 500, -1])
def test_a_torn_file_is_corrupt(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.parquet"
    write_table(path, filled(schemas.RANKINGS, 50))
    digest = sha256_of(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreCorrupt):
        read_table(path, sha256=digest)


def test_what_never_was_parquet_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(StoreCorrupt):
        read(path)


def test_a_missing_file_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(StoreCorrupt):
        read_table(tmp_path / "gone.parquet", sha256="")


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.dictionary(pa.int32(), pa.string())])
def test_values_that_have_values_are_not_written_as_lines(
    tmp_path: Path, kind: pa.DataType
) -> None:
    with pytest.raises(TypeError, match="is not written as JSON"):
        write_jsonl(tmp_path / "x.jsonl", pa.table({"some": pa.nulls(2, kind)}))


def test_rows_are_taken_in_pieces() -> None:
    """Together they may be more than one array holds."""
    table = pa.table({"z_t": pa.array([b"a", b"bb", b""]), "question": [0, 1, 2]})
    order = np.array([2, 1, 1, 0, 1, 2, 2])
    found = rows_taken(table, order, at_once=3)
    assert found.equals(table.take(pa.array(order)))
    assert [len(chunk) for chunk in found["z_t"].chunks if len(chunk)] == [3, 3, 1]
    none = rows_taken(table, order[:0], at_once=3)
    assert (none.num_rows, none.schema) == (0, table.schema)
