"""Read-only SQL over a DuckDB file, answered row by row."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cir_core.errors import CirError, PreflightError, StoreBusy, StoreCorrupt
from storage.embedding_views import mentions_embeddings, offer_embeddings
from storage.quoting import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from duckdb.sqltypes import DuckDBPyType

REBUILD = "`cir-pipeline run` builds it anew"
BATCH = 10_000
"""Rows that are held at a time."""
NUMBERS = {
    *("boolean", "float", "double", "decimal"),
    *("tinyint", "smallint", "integer", "bigint", "hugeint"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"),
}
NESTED = {"list", "array", "struct", "tuple", "map", "union"}


@dataclass(frozen=True)
class Answer:
    """Column names, of which several may be the same, and rows yet to be fetched.

    A value is None, a bool, an int, a float, a Decimal, a text, or a list, tuple or dict of these;
    see ``told_as`` for which."""

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]

    def fetch(self, most: int) -> list[tuple[Any, ...]]:
        """The next rows; none when there are no more."""
        return list(islice(self.rows, most))


@dataclass(frozen=True)
class OpenCatalog:
    """Open for reading: several statements, one after the other, each of which ends the last."""

    path: Path
    connection: "DuckDBPyConnection"

    @contextmanager
    def ask(self, sql: str) -> Iterator[Answer]:
        """Raises as ``ask``."""
        import duckdb

        try:
            if mentions_embeddings(sql):
                offer_embeddings(self.connection, self.path.parent)
            yield _answer(self.connection, sql)
        except duckdb.PermissionException as error:
            raise PreflightError(
                "the query failed",
                item=sql,
                cause=str(error),
                remedy="`cir-pipeline sql --allow-files` reads and writes files",
            ) from error
        except duckdb.Error as error:
            if "Corrupt database file" in str(error):
                raise _damaged(self.path, error) from error
            raise PreflightError("the query failed", item=sql, cause=str(error)) from error

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Each by column. Raises as ``ask``."""
        with self.ask(sql) as answer:
            return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


@contextmanager
def reading(path: Path, *, files: bool = False) -> Iterator[OpenCatalog]:
    """Other files are neither read nor written, unless ``files``. Raises as ``ask``."""
    with _open(path) as connection:
        if not files:
            connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false; SET lock_configuration = true")
        yield OpenCatalog(path, connection)


@contextmanager
def ask(path: Path, sql: str, *, files: bool = False) -> Iterator[Answer]:
    """One statement's answer. Other files are neither read nor written, unless ``files``.

    Raises PreflightError when there is no file, it is of a newer DuckDB, the SQL is wrong or not
    one statement; StoreBusy when another process has it open for writing; StoreCorrupt when it is
    damaged.
    """
    with reading(path, files=files) as catalog, catalog.ask(sql) as answer:
        yield answer


def told_as(kind: "DuckDBPyType") -> str:
    """The type that a column is cast to, so that Python holds its values exactly.

    Numbers and booleans are left as they are; all else is DuckDB's own text: 2020-01-31,
    infinity, 1 month 3 days, \\xAB\\x00 of a blob. Lists, arrays, structs, tuples, maps and unions
    stay what they are, of such values, but that keys of maps are texts always (Python cannot have a
    list for a key). A union is its member's value; which member that is, ``union_tag`` tells.
    """
    if kind.id in NUMBERS:
        return str(kind)
    if kind.id not in NESTED:
        return "VARCHAR"
    return _nested(kind.id, kind.children)


def _nested(kind: str, children: "Sequence[tuple[str, DuckDBPyType | int | list[str]]]") -> str:
    told = [(name, told_as(part)) for name, part in children if not isinstance(part, int | list)]
    parts = dict(told)
    if kind == "list":
        return f"{parts['child']}[]"
    if kind == "array":
        return f"{parts['child']}[{dict(children)['size']}]"
    if kind == "map":
        return f"MAP(VARCHAR, {parts['value']})"
    if kind == "tuple":  # its parts have no names
        return f"TUPLE({', '.join(part for _, part in told)})"
    members = (f"{quoted(name)} {part}" for name, part in told if name)  # "": the tag
    return f"{kind.upper()}({', '.join(members)})"


def _answer(connection: "DuckDBPyConnection", sql: str) -> Answer:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise PreflightError(
            "the query failed",
            item=sql,
            cause=f"{len(statements)} statements, not one",
            remedy="ask one at a time",
        )
    relation = connection.sql(sql)  # a SELECT is only understood, all else is done
    if relation is None:
        return Answer([], iter(()))
    casts = [
        f"CAST(#{place} AS {told_as(kind)})" for place, kind in enumerate(relation.types, start=1)
    ]
    if statements[0].type.name != "SELECT":
        return Answer(relation.columns, relation.project(", ".join(casts)).iter_rows())
    if list(map(told_as, relation.types)) != list(map(str, relation.types)):
        sql = f"SELECT {', '.join(casts)} FROM (\n{_open_ended(statements[0].query)}\n)"
    return Answer(relation.columns, _streamed(connection.execute(sql)))


def _streamed(connection: "DuckDBPyConnection") -> Iterator[tuple[Any, ...]]:
    while rows := connection.fetchmany(BATCH):
        yield from rows


def _open_ended(statement: str) -> str:
    """Without the semicolons at its end, so that it can stand in parentheses."""
    import duckdb

    text = statement.encode()  # DuckDB counts bytes
    for start, kind in reversed(duckdb.tokenize(statement)):
        if kind != duckdb.token_type.comment and text[start:][:1] != b";":
            break
        text = text[:start]
    return text.decode()


def _open(path: Path) -> "DuckDBPyConnection":
    if not path.is_file():
        raise PreflightError(
            "there is no catalog yet", item=str(path), remedy="run `cir-pipeline run` first"
        )
    import duckdb

    try:
        return duckdb.connect(str(path.absolute()), read_only=True)
    except duckdb.Error as error:
        raise _not_opened(path, error) from error


def _not_opened(path: Path, error: Exception) -> CirError:
    told, cause = str(error), str(error).splitlines()[0]
    if "Could not set lock" in told:
        return StoreBusy(
            "the catalog is open in another process",
            item=str(path),
            cause=cause,
            remedy="close the shell that has it open for writing",
        )
    if re.search(r"version number \d+, but we can only read", told):
        return PreflightError(
            "the catalog was made by a newer DuckDB",
            item=str(path),
            cause=cause,
            remedy=f"upgrade duckdb, or delete the file: {REBUILD}",
        )
    if "Permission denied" in told:
        return PreflightError(
            "the catalog cannot be read",
            item=str(path),
            cause=cause,
            remedy="give the current user read permission",
        )
    return _damaged(path, error)


def _damaged(path: Path, error: Exception) -> StoreCorrupt:
    return StoreCorrupt(
        "the catalog is damaged, or is none",
        item=str(path),
        cause=str(error).splitlines()[0],
        remedy=REBUILD,
    )
