"""``cir.duckdb``: the store's evaluated runs as tables and views; rebuilt from Parquet at will."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cir_core.errors import PreflightError, StoreBusy
from storage.atomic import commit

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# duckdb is imported where it is used: a module that some thread still holds at exit, as under
# Prefect, would make its binding print pages about leaked objects.

STORAGE_VERSION = "v1.0.0"
"""Of the database file: old enough that every DuckDB 1.x and 2.x client opens it."""

CATALOG_FILE = "cir.duckdb"
RUN_ID_DIGITS = 12


def run_id_of(evaluated: str) -> str:
    """The short name of a run: the first digits of its evaluation's fingerprint."""
    return evaluated[:RUN_ID_DIGITS]


@dataclass(frozen=True)
class PublishedRun:
    """One run as the catalog shows it: its row of ``runs``, and its other tables by name."""

    row: Mapping[str, Any]
    tables: Mapping[str, pa.Table]


def published_runs(path: Path) -> set[str]:
    """Ids of the runs in a catalog; empty when there is none, it cannot be read, or other tables
    and views than this version's are in it."""
    if not path.is_file():
        return set()
    import duckdb

    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            made_by = connection.execute("SELECT sql_sha256 FROM catalog").fetchall()
            runs = connection.execute("SELECT run_id FROM runs").fetchall()
            return {run for (run,) in runs} if made_by == [(_sql_sha256(),)] else set()
    except duckdb.Error:  # damaged, foreign or held read-write: it is about to be replaced
        return set()


def write_catalog(path: Path, runs: Sequence[PublishedRun]) -> None:
    """Build the whole catalog beside ``path`` and swap it in: open readers keep the old file.

    Raises StoreBusy when a shell has unsaved changes in the old file: swapping would leave a new
    file that does not match the shell's write-ahead log, and cannot be opened.
    """
    import duckdb

    log = path.with_name(path.name + ".wal")
    if log.exists():
        raise StoreBusy(
            "the catalog has a write-ahead log: a shell has it open for writing",
            item=str(log),
            cause="DuckDB was opened without -readonly and has uncommitted or unsaved changes",
            remedy="close that shell (or run CHECKPOINT in it), then run the same command again",
        )

    def build(temporary: Path) -> None:
        with duckdb.connect() as connection:
            location = str(temporary).replace("'", "''")
            connection.execute(
                f"ATTACH '{location}' AS cir (STORAGE_VERSION '{STORAGE_VERSION}'); USE cir"
            )
            connection.execute(_sql("tables.sql"))
            connection.execute("INSERT INTO catalog VALUES (?)", [_sql_sha256()])
            connection.execute("BEGIN")
            for run in runs:
                _insert(connection, run)
            connection.execute("COMMIT")
            connection.execute(_sql("views.sql"))
            connection.execute("CHECKPOINT; USE memory; DETACH cir")

    commit(path, build)


def query(path: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one read-only query.

    Raises PreflightError when there is no catalog or the SQL is wrong, StoreBusy when another
    process has it open for writing.
    """
    if not path.is_file():
        raise PreflightError(
            "there is no catalog yet", item=str(path), remedy="run `cir-pipeline run` first"
        )
    import duckdb

    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            result = connection.sql(sql)
            return ([], []) if result is None else (list(result.columns), result.fetchall())
    except duckdb.IOException as error:
        raise StoreBusy(
            "the catalog cannot be opened",
            item=str(path),
            cause=str(error).splitlines()[0],
            remedy="close the shell that has it open for writing; a damaged file is rebuilt by "
            "`cir-pipeline run`",
        ) from error
    except duckdb.Error as error:
        raise PreflightError("the query failed", item=sql, cause=str(error)) from error


def _insert(connection: "DuckDBPyConnection", run: PublishedRun) -> None:
    run_row = pa.Table.from_pylist([dict(run.row)])
    _insert_table(connection, "runs", run_row)
    for name, table in run.tables.items():
        with_run = table.append_column("run_id", pa.repeat(run.row["run_id"], len(table)))
        _insert_table(connection, name, with_run)


def _insert_table(connection: "DuckDBPyConnection", name: str, rows: pa.Table) -> None:
    connection.register("incoming", rows)
    connection.execute(f'INSERT INTO "{name}" BY NAME SELECT * FROM incoming')
    connection.unregister("incoming")


def _sql_sha256() -> str:
    return hashlib.sha256((_sql("tables.sql") + _sql("views.sql")).encode()).hexdigest()


def _sql(name: str) -> str:
    return (resources.files("storage") / "sql" / name).read_text(encoding="utf-8")
