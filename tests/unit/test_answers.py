"""Every type of DuckDB comes through JSON, CSV and a table as DuckDB tells it."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cir_core.errors import PreflightError
from flows.views.answers import print_csv, print_json, print_rows
from flows.views.values import cell
from storage.answers import ask

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
        print_json(answer, None)
    (row,) = rows_of_json(capsys.readouterr().out)
    assert row == {"a": wanted(value), "e": "é", "a_1": wanted(value)}

    with ask(catalog, sql) as answer:
        print_csv(answer, None)
    heading, fields = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert heading == ["a", "e", "a_1"]
    assert fields == [in_csv(value), "é", in_csv(value)]

    with ask(catalog, sql) as answer:
        told = cell(next(answer.rows)[0])
    with ask(catalog, sql) as answer:
        print_rows(answer, None)
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
