"""``cir.duckdb``: the store's evaluated runs as tables and views; rebuilt from Parquet at will."""

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cir_core.errors import StoreBusy, StoreCorrupt
from storage.answers import ask
from storage.atomic import commit
from storage.catalog_tables import ddl
from storage.catalog_views import describe_columns, views
from storage.embedding_views import EMBEDDING_VIEWS, create_embedding_views
from storage.lock import is_open_for_writing
from storage.products import Product
from storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# duckdb is imported where it is used: a module that some thread still holds at exit, as under
# Prefect, would make its binding print pages about leaked objects.

_log = logging.getLogger(__name__)

STORAGE_VERSION = "v1.0.0"
"""Of the database file. Tried (1.1.0, 1.1.3, 1.2.0, 1.3.0, 1.4.0, 2.0.0): clients from 1.1 on read
every table and view; 1.0.0 opens the file, and cannot read all of them."""

CATALOG_FILE = "cir.duckdb"
VERSION_DIGITS = 16

CONTENTS_VERSION = 1
"""Of what a run's rows are read from and how: raised when ``tasks.stages.run_tables`` fills the
same tables with something else, so that older catalogs are built anew."""


@dataclass(frozen=True)
class PublishedRun:
    """One run as the catalog shows it: its row of ``runs``, and its other tables by name."""

    row: Mapping[str, Any]
    tables: Mapping[str, pa.Table]


class BrokenRuns(StoreCorrupt):
    """Runs whose tables contradict each other: ``faults`` has for each the views ``integrity_*``
    that are not empty, and how many rows they have."""

    def __init__(self, path: Path, faults: Mapping[str, Mapping[str, int]]) -> None:
        lines = [
            f"run {run}: {count} rows in {view}"
            for run, views in faults.items()
            for view, count in views.items()
        ]
        super().__init__(
            "results contradict each other",
            item="\n".join(lines),
            cause=f"these views must be empty in {path}",
            remedy="delete artifacts/rank and artifacts/evaluate below the store and run the same "
            "command again; if this stays, it is a bug",
        )
        self.faults = faults


def catalog_product(store: Store) -> Product:
    """A store's catalog as a product of this version's tables and views; its sources are the
    contents of its runs' evaluations, by run id."""
    sql = hashlib.sha256((ddl() + views() + repr(EMBEDDING_VIEWS)).encode()).hexdigest()
    version = f"{CONTENTS_VERSION}-{sql[:VERSION_DIGITS]}"
    return Product(store, "", CATALOG_FILE, version, (CATALOG_FILE,))


def put_catalog(store: Store, runs: Iterable[PublishedRun]) -> None:
    """``write_catalog`` of a store's own. Raises as it, and as ``Store.put``."""
    write_catalog(store.local(CATALOG_FILE), runs, put=partial(store.put, CATALOG_FILE))


def write_catalog(
    path: Path,
    runs: Iterable[PublishedRun],
    *,
    put: Callable[[Callable[[Path], None]], object] | None = None,
) -> None:
    """Build the whole catalog beside ``path`` and swap it in, or have it ``put`` there: open
    readers keep the old file. Of ``runs``, which are asked for one by one, none is kept in memory.

    Raises BrokenRuns, and changes nothing, when a view ``integrity_*`` is not empty. Raises
    StoreBusy when a shell has unsaved changes in the old file: swapping would leave a new file that
    does not match the shell's write-ahead log, and cannot be opened. What a killed shell left is
    kept beside the new file, with a warning.
    """
    import duckdb

    log = _log_of(path)
    if log.exists() and is_open_for_writing(path):
        raise StoreBusy(
            "the catalog has a write-ahead log: a shell has it open for writing",
            item=str(log),
            cause="DuckDB was opened without -readonly and has uncommitted or unsaved changes",
            remedy="close that shell (or run CHECKPOINT in it), then run the same command again",
        )

    def build(temporary: Path) -> None:
        with _without_query(temporary.absolute()) as plain, duckdb.connect() as connection:
            plain.write_bytes(_empty_catalog())
            _attach(connection, plain)
            connection.execute("BEGIN")  # of all: each statement of its own would be written out
            for run in runs:
                _insert(connection, run)
            create_embedding_views(connection)
            describe_columns(connection)
            connection.execute("COMMIT")
            _require_integrity(connection, path)
            connection.execute(_DETACH)
        if log.exists():
            _set_aside(path, log)

    (put or partial(commit, path))(build)


_DETACH = "CHECKPOINT; USE memory; DETACH cir"


@cache
def _empty_catalog() -> bytes:
    """A file of the tables and views alone: what takes half of the time of a small catalog, and is
    the same for each that a process writes, as a training does with every validation."""
    import duckdb

    with TemporaryDirectory() as folder, duckdb.connect() as connection:
        file = Path(folder) / CATALOG_FILE
        _attach(connection, file)
        connection.execute("BEGIN")
        connection.execute(ddl())
        connection.execute(views())
        connection.execute("COMMIT")
        connection.execute(_DETACH)
        return file.read_bytes()


def _attach(connection: "DuckDBPyConnection", file: Path) -> None:
    location = str(file).replace("'", "''")
    connection.execute(f"ATTACH '{location}' AS cir (STORAGE_VERSION '{STORAGE_VERSION}'); USE cir")


def _set_aside(path: Path, log: Path) -> None:
    """A copy of the catalog, and the log of a shell that was killed, under a name of their own:
    DuckDB opens them there with the shell's changes. The log goes last: without it the next time
    would find nothing to keep."""
    names = (
        path.with_name(f"{path.stem}-unsaved-{number}{path.suffix}")
        for number in itertools.count(1)
    )
    kept = next(name for name in names if not (name.exists() or _log_of(name).exists()))
    _log.warning("a shell was killed with unsaved changes in the catalog: kept as %s", kept)
    with suppress(FileNotFoundError):
        copyfile(path, kept)
    log.replace(_log_of(kept))


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


@contextmanager
def _without_query(path: Path) -> Iterator[Path]:
    """The path, or one without a question mark whose file is then copied there: DuckDB puts the
    suffix of its log before the first one, also behind a link, and then finds no such folder."""
    if "?" not in str(path):
        yield path
        return
    with TemporaryDirectory() as folder:
        plain = Path(folder) / CATALOG_FILE
        yield plain
        copyfile(plain, path)


def query(path: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and all rows of one read-only statement; raises as ``ask``."""
    with ask(path, sql) as answer:
        return answer.columns, list(answer.rows)


def _insert(connection: "DuckDBPyConnection", run: PublishedRun) -> None:
    run_row = pa.Table.from_pylist([dict(run.row)])
    _insert_table(connection, "runs", run_row)
    for name, table in run.tables.items():
        with_run = table.append_column("run_id", pa.repeat(run.row["run_id"], len(table)))
        _insert_table(connection, name, with_run)


def _insert_table(connection: "DuckDBPyConnection", name: str, incoming: pa.Table) -> None:
    """DuckDB finds the rows by the name of the variable; of registered ones, it would let go at the
    end of the transaction alone."""
    connection.execute(f'INSERT INTO "{name}" BY NAME SELECT * FROM incoming')


def _require_integrity(connection: "DuckDBPyConnection", path: Path) -> None:
    views = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE view_name LIKE 'integrity_%' ORDER BY ALL"
    ).fetchall()
    faults: dict[str, dict[str, int]] = {}
    for (view,) in views:
        counts = f'SELECT run_id, count(*) FROM "{view}" GROUP BY run_id ORDER BY run_id'
        for run, count in connection.execute(counts).fetchall():
            faults.setdefault(run, {})[view] = count
    if faults:
        raise BrokenRuns(path, faults)
