"""Read-only SQL over a DuckDB file, answered row by row."""

import re
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cir_core.errors import CirError, PreflightError, StoreBusy, StoreCorrupt, UsageError
from storage.atomic import commit
from storage.embedding_views import mentions_embeddings, offer_embeddings
from storage.exact_types import IN_PARQUET, IN_PYTHON, told_as
from storage.quoting import literal, quoted
from storage.statements import open_ended, parts_of
from storage.tables import damaged

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

REBUILD = "`cir-pipeline run` builds it anew"
BATCH = 10_000
"""Rows that are held at a time."""


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
        with self._failing(sql):
            yield _answer(self.connection, sql)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Each by column. Raises as ``ask``."""
        with self.ask(sql) as answer:
            return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    def run(self, run_id: str) -> dict[str, Any]:
        """A run's row of the table runs. Raises as ``ask``; PreflightError when the catalog lacks
        the run."""
        found = self.rows(f"SELECT * FROM runs WHERE run_id = {literal(run_id)}")
        if not found:
            raise PreflightError(
                "the run is not in the catalog",
                item=run_id,
                cause="it ended before its catalog was written, or another version wrote that",
                remedy="repeat the command that made it, to its report: it publishes the run",
            )
        return found[0]

    @contextmanager
    def holding(self, view: str, condition: str) -> Iterator[None]:
        """Meanwhile a view's rows for which the condition holds are kept, and are all that
        statements find in it: for several about the same rows, which it then counts once."""
        rows = f"SELECT * FROM {quoted(view)} WHERE {condition}"
        with self._failing(rows):
            self.connection.execute(f"CREATE TEMP TABLE {quoted(view)} AS {rows}")
        try:
            yield
        finally:
            self.connection.execute(f"DROP TABLE temp.{quoted(view)}")

    def statements(self, text: str) -> Iterator[str]:
        """The statements that a text holds, one after the other. Raises PreflightError at one that
        cannot be understood, after those before it."""
        for part in parts_of(text):
            with self._failing(part):
                found = [one.query for one in self.connection.extract_statements(part)]
            yield from found

    def save(self, sql: str, file: Path, limit: int | None = None) -> None:
        """A statement's rows as Parquet, whole or not at all: numbers, dates, times and blobs as
        such, all else (intervals, unions, UUIDs, 128 bits without sign) as DuckDB's own text. A
        column of a name that was there before gets a suffix.

        Raises as ``ask``; UsageError for a statement that has no rows; OutOfSpace and
        PreflightError where the file cannot be written.
        """
        with self._failing(sql):
            asked = _asked(self.connection, sql)
            if asked.relation is None:
                raise UsageError(
                    "the statement has no rows to write", item=sql, remedy="leave out --out"
                )
            names = map(quoted, told_apart(asked.relation.columns))
            casts = zip(asked.casts(IN_PARQUET), names, strict=True)
            rows = asked.cast([f"{cast} AS {name}" for cast, name in casts])
            reader = pa.RecordBatchReader.from_stream(rows.limit(limit) if limit else rows)
            commit(file, lambda temporary: _write_parquet(temporary, reader))

    @contextmanager
    def _failing(self, sql: str) -> Iterator[None]:
        import duckdb

        try:
            if mentions_embeddings(sql):
                offer_embeddings(self.connection, self.path.parent, sql)
            yield
        except duckdb.Error as error:
            if "Corrupt database file" in str(error):
                raise _damaged(self.path, error) from error
            if "checksum verification failed" in str(error):
                raise damaged(f"embeddings below {self.path.parent}", str(error)) from error
            raise PreflightError(
                "the query failed", item=sql, cause=str(error), remedy=_remedy_of(error)
            ) from error
        except RuntimeError as error:  # in place of what a signal's handler has raised
            if "Query interrupted" in str(error):
                raise KeyboardInterrupt from error
            raise


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


@dataclass(frozen=True)
class _Asked:
    """One statement; without a relation it only succeeds."""

    connection: "DuckDBPyConnection"
    is_select: bool
    query: str
    relation: "DuckDBPyRelation | None"

    def casts(self, kept: Set[str]) -> list[str]:
        """Of its columns, by their places."""
        types = [] if self.relation is None else self.relation.types
        return [f"CAST(#{place} AS {told_as(one, kept)})" for place, one in enumerate(types, 1)]

    def cast(self, columns: Sequence[str]) -> "DuckDBPyRelation":
        """Its rows, with these columns made of its own."""
        assert self.relation is not None
        if not self.is_select:
            return self.relation.project(", ".join(columns))
        return self.connection.sql(self.cast_select(columns))

    def cast_select(self, columns: Sequence[str]) -> str:
        return f"SELECT {', '.join(columns)} FROM (\n{open_ended(self.query)}\n)"


def _asked(connection: "DuckDBPyConnection", sql: str) -> _Asked:
    """A SELECT is only understood, all else is done."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise PreflightError(
            "the query failed",
            item=sql,
            cause=f"{len(statements)} statements, not one",
            remedy="ask one at a time",
        )
    is_select = statements[0].type.name == "SELECT"
    return _Asked(connection, is_select, statements[0].query, connection.sql(sql))


def _answer(connection: "DuckDBPyConnection", sql: str) -> Answer:
    asked = _asked(connection, sql)
    if asked.relation is None:
        return Answer([], iter(()))
    columns, types = asked.relation.columns, asked.relation.types
    casts = asked.casts(IN_PYTHON)
    if not asked.is_select:
        return Answer(columns, asked.cast(casts).iter_rows())
    is_exact = list(map(told_as, types)) == list(map(str, types))
    plain = sql if is_exact else asked.cast_select(casts)
    return Answer(columns, _streamed(connection.execute(plain)))


def _remedy_of(error: Exception) -> str:
    """The next thing to try after DuckDB's refusal; empty where its own words say all."""
    import duckdb

    if isinstance(error, duckdb.PermissionException):
        return "`cir-pipeline sql --allow-files` reads and writes files"
    names = "`cir-pipeline sql --schema` tells tables and views, --schema NAME the columns of one"
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return f"{names}; of a catalog that an older version wrote, {REBUILD}"
    return names if isinstance(error, duckdb.ParserException) else ""


def _write_parquet(file: Path, rows: pa.RecordBatchReader) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file.absolute(), rows.schema, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(batch)


def _streamed(connection: "DuckDBPyConnection") -> Iterator[tuple[Any, ...]]:
    while rows := connection.fetchmany(BATCH):
        yield from rows


def told_apart(names: Sequence[str]) -> list[str]:
    """Each name once: one that occurred before gets the first free suffix, ``_1`` and on."""
    taken, apart = set(names), list[str]()
    for name in names:
        free, number = name, 0
        while free in apart or (number and free in taken):
            number += 1
            free = f"{name}_{number}"
        apart.append(free)
    return apart


def _open(path: Path) -> "DuckDBPyConnection":
    if path.is_dir():
        raise PreflightError(
            "a folder has the place of the catalog",
            item=str(path),
            remedy=f"move it away: {REBUILD}",
        )
    if not path.is_file():
        raise PreflightError(
            "there is no catalog yet",
            item=str(path),
            remedy="run `cir-pipeline run` first, or name another folder with --store",
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
    if re.search(r"version number \d+, but we can only read|Unsupported Storage Version", told):
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
