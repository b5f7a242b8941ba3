"""Table files as rows: values as written, faults with their line, whole files refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cir_core.errors import AnnotationError
from cir_core.types import ImageId, Listing, Row, Rows
from storage.sources.annotations import AnnotationReader
from storage.sources.rows import read_rows as rows_in


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_rows(path: Path) -> Rows:
    return rows_in(path.read_bytes(), path)


def values(rows: Rows) -> list[dict[str, Any]]:
    assert not [row for row in rows.entries if row.fault]
    return [dict(row.values) for row in rows.entries]


# --- CSV


def test_csv_values_stay_text_whatever_they_look_like(tmp_path: Path) -> None:
    text = '\ufeffreference,text\r\n007,"two\nlines, ""quoted"""\r\n\r\nNULL,\t 1.0 \r\n'
    rows = read_rows(written(tmp_path, "q.csv", text))
    assert rows.columns == ("reference", "text")
    assert values(rows) == [
        {"reference": "007", "text": 'two\nlines, "quoted"'},
        {"reference": "NULL", "text": "\t 1.0 "},
    ]
    assert [row.place for row in rows.entries] == ["line 2", "line 5"]


def test_csv_lines_that_cannot_be_read_are_rows_with_a_fault(tmp_path: Path) -> None:
    text = 'a,b\n1,2,3\n"x"y,2\n1\n1,2\n'
    rows = read_rows(written(tmp_path, "q.csv", text))
    assert [(row.place, row.fault.partition(":")[0]) for row in rows.entries] == [
        ("line 2", "has 3 values, and the header 2"),
        ("line 3", "is not CSV"),
        ("line 4", "has 1 values, and the header 2"),
        ("line 5", ""),
    ]


def test_what_a_spreadsheet_leaves_is_nothing(tmp_path: Path) -> None:
    """Columns that were once in use, rows below the last, and cells right of the table."""
    text = ",,\r\nreference,,text,,\r\na.png,,red,,\r\n,,,,\r\nb.png,,blue,,,,,\r\n,,\r\n"
    rows = read_rows(written(tmp_path, "q.csv", text))
    assert rows.columns == ("reference", "text")
    assert values(rows) == [
        {"reference": "a.png", "text": "red"},
        {"reference": "b.png", "text": "blue"},
    ]
    assert [row.place for row in rows.entries] == ["line 3", "line 5"]


def test_a_value_under_no_name_is_a_fault_of_its_line(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "q.csv", "a,,b,\n1,,2,\n1,x,2,\n1,,2,,y\n ,,,\n"))
    assert [(row.place, row.fault) for row in rows.entries] == [
        ("line 2", ""),
        ("line 3", "has a value in column 2, which has no name: 'x'"),
        ("line 4", "has 5 values, and the header 4"),
        ("line 5", ""),  # a space is a value
    ]


@pytest.mark.parametrize("content", ["9" * 5000, "[" * 100_000])
def test_json_that_python_does_not_read_is_refused(tmp_path: Path, content: str) -> None:
    written(tmp_path, "split.json", content)
    with pytest.raises(AnnotationError, match="is not JSON text"):
        AnnotationReader(tmp_path).read("split.json")


def test_names_in_a_list_keep_other_separators(tmp_path: Path) -> None:
    written(tmp_path, "list.txt", "a\u2028b\r\nc\x0bd\n\ne")
    assert AnnotationReader(tmp_path).read("list.txt") == ["a\u2028b", "c\x0bd", "", "e"]


def test_parquet_values_that_python_cannot_hold_are_refused(tmp_path: Path) -> None:
    far = pa.array([2**60], pa.timestamp("ms"))
    pq.write_table(pa.table({"reference": ["a"], "when": far}), tmp_path / "q.parquet")
    with pytest.raises(AnnotationError, match="not Parquet that can be read"):
        read_rows(tmp_path / "q.parquet")


def test_a_quote_that_is_never_closed_is_a_fault_of_its_line(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "q.csv", 'a,b\n1,2\n"3,4\n5,6\n'))
    assert [row.place for row in rows.entries if row.fault] == ["line 3"]


def test_bytes_that_are_not_utf8_are_kept_apart_from_text(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "q.csv", b"a\ncaf\xe9\n"))
    assert values(rows) == [{"a": "caf\udce9"}]
    rows = read_rows(written(tmp_path, "q.jsonl", b'{"a": "caf\xe9"}\n'))
    assert values(rows) == [{"a": "caf\udce9"}]


@pytest.mark.parametrize("name", ["q.csv", "q.jsonl"])
def test_utf16_is_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    with pytest.raises(AnnotationError, match="UTF-16"):
        read_rows(written(tmp_path, name, "a,b\n".encode("utf-16")))


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="names a column twice"):
        read_rows(written(tmp_path, "q.csv", "a,b,a\n"))


def test_an_empty_file_has_no_columns(tmp_path: Path) -> None:
    assert read_rows(written(tmp_path, "q.csv", "")) == Rows((), ())
    assert read_rows(written(tmp_path, "q.jsonl", "\n")) == Rows((), ())


def test_a_long_value_is_read(tmp_path: Path) -> None:
    (row,) = values(read_rows(written(tmp_path, "q.csv", "a\n" + "x" * 200_000)))
    assert len(row["a"]) == 200_000


# --- JSONL


def test_jsonl_keeps_types_and_breaks_lines_at_newlines_alone(tmp_path: Path) -> None:
    text = '{"a": "x\u2028y", "b": 1}\r\n\n{"c": ["d"]}'
    rows = read_rows(written(tmp_path, "q.jsonl", text))
    assert rows.columns == ("a", "b", "c")
    assert values(rows) == [{"a": "x\u2028y", "b": 1}, {"c": ["d"]}]
    assert [row.place for row in rows.entries] == ["line 1", "line 3"]


def test_jsonl_lines_that_cannot_be_read_are_rows_with_a_fault(tmp_path: Path) -> None:
    lines = ['{"a": 1}', "{", "[1]", '{"a": 1, "a": 2}', "[" * 100_000]
    rows = read_rows(written(tmp_path, "q.jsonl", "\n".join(lines)))
    assert rows.entries[0] == Row("line 1", {"a": 1})
    told = [row.fault for row in rows.entries[1:]]
    assert told[1:3] == ["is a JSON list, not an object", "is not JSON: a name is given twice"]
    assert all(fault.startswith("is not JSON: ") for fault in (told[0], told[3]))


# --- Parquet


def test_parquet_rows_are_numbered_and_keep_their_types(tmp_path: Path) -> None:
    columns = {
        "reference": pa.array(["007", None], pa.large_string()),
        "category": pa.array(["x", "x"]).dictionary_encode(),
        "targets": pa.array([["a", "b"], None]),
        "n": pa.array([1, 2]),
    }
    pq.write_table(pa.table(columns), tmp_path / "q.PARQUET")
    rows = read_rows(tmp_path / "q.PARQUET")
    assert values(rows) == [
        {"reference": "007", "category": "x", "targets": ["a", "b"], "n": 1},
        {"reference": None, "category": "x", "targets": None, "n": 2},
    ]
    assert [row.place for row in rows.entries] == ["row 1", "row 2"]


def test_parquet_columns_without_a_name_are_dropped_where_they_are_empty(tmp_path: Path) -> None:
    columns = [pa.array(["x", "y"]), pa.nulls(2, pa.string()), pa.array(["", "z"])]
    pq.write_table(pa.table(columns, names=["a", "", ""]), tmp_path / "q.parquet")
    rows = read_rows(tmp_path / "q.parquet")
    assert rows.columns == ("a",)
    assert rows.entries == (
        Row("row 1", {"a": "x"}),
        Row("row 2", {}, "has a value in column 3, which has no name: 'z'"),
    )


def test_parquet_text_that_is_not_utf8_is_kept_apart(tmp_path: Path) -> None:
    raw = pa.array([b"caf\xe9"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"a": raw}), tmp_path / "q.parquet")
    assert values(read_rows(tmp_path / "q.parquet")) == [{"a": "caf\udce9"}]


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="not Parquet that can be read"):
        read_rows(written(tmp_path, "q.parquet", b"PAR1"))


# --- whole files and folders


def test_a_missing_file_and_one_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for name, told in (("q.csv", "a table file is missing"), ("q.json", "annotation file is")):
        with pytest.raises(AnnotationError, match=told):
            AnnotationReader(tmp_path).read(name)
    (tmp_path / "x").touch()
    with pytest.raises(AnnotationError, match="cannot be read"):
        AnnotationReader(tmp_path).read("x/q.csv")


def test_an_adapter_gets_what_a_path_is(tmp_path: Path) -> None:
    written(tmp_path, "q.csv", "a\n1\n")
    written(tmp_path, "x.json", "\ufeff" + json.dumps({"b": 1}))
    written(tmp_path, "x.txt", "\ufeffc\nd\n")
    written(tmp_path, "x.jpg", "")
    reader = AnnotationReader(tmp_path)
    assert reader.read(".") == reader.listings["."] == Listing((ImageId("x.jpg"),))
    assert values(reader.read("q.csv")) == [{"a": "1"}]
    assert reader.read("x.json") == {"b": 1}
    assert reader.read("x.txt") == ["c", "d"]


def test_a_file_that_is_asked_for_twice_is_read_once(tmp_path: Path) -> None:
    content = b"a\n1\n"
    reader = AnnotationReader(tmp_path)
    written(tmp_path, "q.csv", content)
    first = reader.read("q.csv")
    written(tmp_path, "q.csv", "a\n2\n")
    assert reader.read("q.csv") is first
    assert reader.sha256 == {"q.csv": hashlib.sha256(content).hexdigest()}
