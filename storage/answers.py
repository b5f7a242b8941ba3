"""Read-only SQL over a DuckDB file, answered row by row."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cir_core.errors import CirError, PreflightError, StoreBusy, StoreCorrupt

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

REBUILD = "`cir-pipeline run` builds it anew"


@dataclass(frozen=True)
class Answer:
    """Column names, of which several may be the same, and rows yet to be fetched."""

    columns: list[str]
    connection: "DuckDBPyConnection"

    def fetch(self, most: int) -> list[tuple[Any, ...]]:
        """The next rows; none when there are no more."""
        return self.connection.fetchmany(most) if self.columns else []


@contextmanager
def ask(path: Path, sql: str, *, files: bool = False) -> Iterator[Answer]:
    """One statement's answer. Other files are neither read nor written, unless ``files``.

    Raises PreflightError when there is no file, it is of a newer DuckDB, the SQL is wrong or not
    one statement; StoreBusy when another process has it open for writing; StoreCorrupt when it is
    damaged.
    """
    import duckdb

    with _open(path) as connection:
        if not files:
            connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false; SET lock_configuration = true")
        try:
            count = len(connection.extract_statements(sql))
            if count != 1:
                raise PreflightError(
                    "the query failed",
                    item=sql,
                    cause=f"{count} statements, not one",
                    remedy="ask one at a time",
                )
            connection.execute(sql)
            described = connection.description or []
            yield Answer([column[0] for column in described], connection)
        except duckdb.PermissionException as error:
            raise PreflightError(
                "the query failed",
                item=sql,
                cause=str(error),
                remedy="`cir-pipeline sql --allow-files` reads and writes files",
            ) from error
        except duckdb.Error as error:
            if "Corrupt database file" in str(error):
                raise _damaged(path, error) from error
            raise PreflightError("the query failed", item=sql, cause=str(error)) from error


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
