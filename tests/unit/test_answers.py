"""Every type of DuckDB comes through JSON, CSV and a table as DuckDB tells it."""

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from cir_core.errors import PreflightError
from flows.views.answers import print_answer, save_answer
from flows.views.values import cell
from storage.answers import OpenCatalog, ask, reading
from storage.statements import is_ended

TOLD = {
    "NULL": None,
    "true": True,
    "'it''s \"é\"'": 'it\'s "é"',
    "''": "",
    "(-128)::TINYINT": -128,
    "18446744073709551615::UBIGINT": 2**64 - 1,
    "170141183460469231731687303715884105727::HUGEINT": 2**127 - 1,
    "340282366920938463463374607431768211455::UHUGEINT": 2**128 - 1,
    "1234567890123456789012345678901234567890::BIGNUM": "1234567890123456789012345678901234567890",
    "1234567890123456789012345678.1234567890::DECIMAL(38, 10)": Decimal(
        "1234567890123456789012345678.1234567890"
    ),
    "0.1::DOUBLE": 0.1,
    "5e-324::DOUBLE": 5e-324,
    "'nan'::DOUBLE": "NaN",
    "'-infinity'::FLOAT": "-Infinity",
    "DATE '2020-01-31'": "2020-01-31",
    "DATE 'infinity'": "infinity",
    "DATE '0044-03-15 (BC)'": "0044-03-15 (BC)",
    "TIMESTAMP '-infinity'": "-infinity",
    "TIMESTAMP '2020-01-01 01:02:03.000001'": "2020-01-01 01:02:03.000001",
    "TIMESTAMP_NS '2020-01-01 00:00:00.123456789'": "2020-01-01 00:00:00.123456789",
    "TIMESTAMPTZ 'infinity'": "infinity",
    "TIME '24:00:00'": "24:00:00",
    "TIME_NS '10:00:00.123456789'": "10:00:00.123456789",
    "TIMETZ '10:00:00+02:30'": "10:00:00+02:30",
    "INTERVAL '14 months 33 days 4 hours'": "1 year 2 months 33 days 04:00:00",
    r"'\xAB\x00a\x5C'::BLOB": r"\xAB\x00a\x5C",
    "'0101'::BIT": "0101",
    "'b'::ENUM('a', 'b')": "b",
    "'4ac7a9e9-607c-4c8a-84f3-843f0191e3fd'::UUID": "4ac7a9e9-607c-4c8a-84f3-843f0191e3fd",
    "'{\"a\": [1]}'::JSON": '{"a": [1]}',
    "union_value(d := DATE 'infinity')::UNION(n INTEGER, d DATE)": "infinity",
    "union_value(n := 7)::UNION(d DATE, n INTEGER)": 7,
    "[]": [],
    "[[1.5::DOUBLE, NULL], NULL]": [[1.5, None], None],
    "[INTERVAL '1 month', NULL]": ["1 month", None],
    "array_value(DATE 'infinity', NULL)": ["infinity", None],
    "row(1, [DATE 'infinity'])": [1, ["infinity"]],
    "{'a \"b\"': {'c': TIMESTAMP 'infinity'}, 'd': NULL}": {'a "b"': {"c": "infinity"}, "d": None},
    "MAP {DATE 'infinity': 1, DATE '2020-01-31': 2}": {"infinity": 1, "2020-01-31": 2},
    "MAP {[1, 2]: INTERVAL '1 month'}": {"[1, 2]": "1 month"},
    "MAP {0.1::DOUBLE: [true]}": {"0.1": [True]},
    "{'v': 'x'::VARIANT}": {"v": "x"},
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("answers") / "x.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n, DATE 'infinity' AS d, 'x' AS w")
    return path


def rows_of_json(text: str) -> Any:
    """As a program reads it that keeps numbers whole."""
    return json.loads(text, parse_float=str)


def wanted(value: Any) -> Any:
    if isinstance(value, float | Decimal):
        return str(value)
    if isinstance(value, list):
        return [wanted(one) for one in value]
    if isinstance(value, dict):
        return {name: wanted(one) for name, one in value.items()}
    return value


@pytest.mark.parametrize("literal", TOLD)
def test_a_value_is_told_exactly(
    catalog: Path, literal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice, in columns of the same name, as a statement that ends like a line of a script."""
    value = TOLD[literal]
    sql = f"SELECT {literal} AS a, 'é' AS e, {literal} AS a; -- so ;"
    with ask(catalog, sql) as answer:
        print_answer(answer, "json", None)
    (row,) = rows_of_json(capsys.readouterr().out)
    assert row == {"a": wanted(value), "e": "é", "a_1": wanted(value)}

    with ask(catalog, sql) as answer:
        print_answer(answer, "csv", None)
    heading, fields = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert heading == ["a", "e", "a_1"]
    assert fields == [in_csv(value), "é", in_csv(value)]

    with ask(catalog, sql) as answer:
        told = cell(next(answer.rows)[0])
    with ask(catalog, sql) as answer:
        print_answer(answer, "table", None)
    assert told in capsys.readouterr().out


def in_csv(value: Any) -> str:
    words = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return words.get(value, value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("FROM t", [(1, "infinity", "x")]),
        ("SELECT d FROM (VALUES (1, DATE 'infinity'), (2, NULL)) v(n, d) ORDER BY n DESC",
         [(None,), ("infinity",)]),
        ("WITH a AS (SELECT d FROM t) FROM a;;", [("infinity",)]),
        ("PIVOT t ON w USING count(n)", [("infinity", 1)]),
        ("VALUES (DATE 'infinity')", [("infinity",)]),
        ("SELECT * FROM t WHERE false", []),
        ("SHOW TABLES", [("t",)]),
        ("SELECT ';' AS a, DATE 'infinity' /* ; */", [(";", "infinity")]),
    ],
)  # fmt: skip
def test_any_statement_is_answered_in_its_order(
    catalog: Path, sql: str, rows: list[tuple[Any, ...]]
) -> None:
    with ask(catalog, sql) as answer:
        assert list(answer.rows) == rows


def test_a_statement_that_only_succeeds_has_no_rows(catalog: Path) -> None:
    with ask(catalog, "BEGIN") as answer:
        assert answer.fetch(9) == []


def test_a_sorted_answer_stays_sorted(catalog: Path) -> None:
    sql = "SELECT hash(range) AS h, DATE 'infinity' FROM range(200000) ORDER BY h"
    with ask(catalog, sql) as answer:
        found = [row[0] for row in answer.rows]
    assert len(found) == 200_000
    assert found == sorted(found)


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "", "SELECT ?", "INSERT INTO t VALUES (1)"])
def test_what_cannot_be_asked_is_refused(catalog: Path, sql: str) -> None:
    with pytest.raises(PreflightError), ask(catalog, sql):
        pass


# --- other forms, and files


@pytest.fixture
def opened(catalog: Path) -> Iterator[OpenCatalog]:
    with reading(catalog) as found:
        yield found


NATIVE = {
    "DATE '2020-01-31'",
    "TIMESTAMP '2020-01-01 01:02:03.000001'",
    "TIMESTAMP_NS '2020-01-01 00:00:00.123456789'",
    "TIMESTAMPTZ 'infinity'",
    *("TIME '24:00:00'", "TIME_NS '10:00:00.123456789'", r"'\xAB\x00a\x5C'::BLOB"),
}
"""Of these Parquet keeps more than the text: the type."""

OTHERWISE = {
    "row(1, [DATE 'infinity'])": "{'element1': 1, 'element2': [infinity]}",
    "MAP {[1, 2]: INTERVAL '1 month'}": "{'[1, 2]'=1 month}",
}
"""A tuple is a struct there, and keys are texts."""


@pytest.mark.parametrize("literal", TOLD)
def test_parquet_holds_a_value_exactly(opened: OpenCatalog, tmp_path: Path, literal: str) -> None:
    """As DuckDB reads it again, twice in columns of one name."""
    file = tmp_path / "x.parquet"
    opened.save(f"SELECT {literal} AS a, {literal} AS a;", file)
    assert pq.read_schema(file).names == ["a", "a_1"]
    with duckdb.connect() as connection:
        asked = f"SELECT ({literal})::VARCHAR, typeof({literal})"
        ((told, kind),) = connection.execute(asked).fetchall()
        again = f"SELECT a::VARCHAR, a_1::VARCHAR, typeof(a) FROM read_parquet('{file}')"
        ((first, second, found),) = connection.execute(again).fetchall()
    assert first == second == OTHERWISE.get(literal, told)
    assert found == kind or literal not in NATIVE


def test_rows_of_parquet_are_in_order_and_limited(opened: OpenCatalog, tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    opened.save("SELECT range AS n FROM range(5000) ORDER BY n DESC", file, 3000)
    assert pq.read_table(file)["n"].to_pylist() == list(range(4999, 1999, -1))
    opened.save("SHOW TABLES", file)
    assert pq.read_table(file).to_pylist() == [{"name": "t"}]
    opened.save("SELECT 1 AS a WHERE false", file)
    assert (pq.read_table(file).num_rows, pq.read_schema(file).names) == (0, ["a"])


def test_what_fails_leaves_the_file_as_it_was(opened: OpenCatalog, tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_text("mine")
    for sql in ("SELECT 1; SELECT 2", "SELECT x", "SELECT 'a'::INT FROM range(9)"):
        with pytest.raises(PreflightError):
            opened.save(sql, file)
    assert [file.read_text(), *tmp_path.iterdir()] == ["mine", file]


def test_json_lines_and_markdown(
    opened: OpenCatalog, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sql = "SELECT n, t FROM (VALUES (0.1::DOUBLE, 'a|b'), (NULL, chr(10) || '<i>')) v(n, t)"
    with opened.ask(sql) as answer:
        print_answer(answer, "jsonl", None)
    lines = capsys.readouterr().out.splitlines()
    assert list(map(json.loads, lines)) == [{"n": 0.1, "t": "a|b"}, {"n": None, "t": "\n<i>"}]
    file = tmp_path / "x.md"
    with opened.ask(sql) as answer:
        save_answer(answer, "markdown", None, file)
    assert file.read_text().splitlines() == [
        "| n | t |",
        "| --- | --- |",
        "| 0.1 | a&#124;b |",
        "|  | &#92;n&#60;i&#62; |",
    ]


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("SELECT 1;", True),
        ("SELECT 1 ; -- more ;", True),
        ("SELECT 'é';\n", True),
        ("SELECT 1", False),
        ("SELECT 1 -- ;", False),
        ("SELECT 1 /* ;", False),
        ("SELECT ';", False),
        ('SELECT ";', False),
        ("SELECT $$ ;", False),
        ("SELECT 1; SELECT", False),
        ("", False),
    ],
)
def test_a_semicolon_ends_a_statement_and_no_text(text: str, ended: bool) -> None:
    assert is_ended(text) == ended


def test_a_text_is_divided_into_its_statements(opened: OpenCatalog) -> None:
    found = opened.statements("SELECT ';'; -- a; b\nFROM t;;")
    assert [opened.rows(one) for one in found] == [
        [{"';'": ";"}],
        [{"n": 1, "d": "infinity", "w": "x"}],
    ]
    assert list(opened.statements(" -- nothing\n")) == []
    found = opened.statements("SELECT 1; SELEC;\nSELECT 2")
    assert next(found) == "SELECT 1;"
    with pytest.raises(PreflightError, match="the query failed") as refused:
        next(found)
    assert refused.value.item == "SELEC;"


def test_rows_that_are_held_are_all_that_a_view_has_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "a.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE VIEW numbers AS SELECT unnest([1, 2, 3]) AS n")
    with reading(file) as catalog:
        with catalog.holding("numbers", "n > 1"):
            assert [row["n"] for row in catalog.rows("SELECT n FROM numbers ORDER BY n")] == [2, 3]
        assert catalog.rows("SELECT count(*) AS n FROM numbers") == [{"n": 3}]
        with pytest.raises(PreflightError, match="the query failed"), catalog.holding("none", "n"):
            pass
