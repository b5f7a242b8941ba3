"""What an open catalog holds, in its own words: SQL over the comments in the file."""

from difflib import get_close_matches
from typing import Any

from cir_core.errors import UsageError
from storage.answers import OpenCatalog
from storage.quoting import literal

_OURS = "database_name = current_database() AND NOT internal"

_GIST = "rtrim(split_part(comment, '. ', 1), '.')"
"""The first sentence of what is meant."""


def tables_sql(*, in_short: bool = False) -> str:
    """Asks for the tables and views, with their rows, where these are counted, and meaning, or the
    first sentence of that."""
    about = _GIST if in_short else "comment"
    return f"""
    SELECT 'table' AS kind, table_name AS name, estimated_size AS rows, {about} AS about
    FROM duckdb_tables() WHERE {_OURS}
    UNION ALL
    SELECT 'view', view_name, NULL, {about} FROM duckdb_views() WHERE {_OURS}
    ORDER BY kind, name"""


def columns_sql(table: str | None) -> str:
    """Asks for the columns of the table or view, or of all, with types and meaning."""
    of_all, which = 'table_name AS "table", ', ""
    if table is not None:
        of_all, which = "", f"AND table_name = {literal(table)}"
    return f"""
    SELECT {of_all}column_name AS "column", data_type AS "type", comment AS about
    FROM duckdb_columns() WHERE {_OURS} {which} ORDER BY table_name, column_index"""


def find_table(catalog: OpenCatalog, name: str) -> dict[str, Any]:
    """The row of ``tables_sql`` of a table or view, in upper or lower case. Raises UsageError, with
    names like it, where there is none of the name."""
    known = {row["name"]: row for row in catalog.rows(tables_sql())}
    found = next((one for one in known if one.casefold() == name.casefold()), None)
    if found is None:
        like = get_close_matches(name.casefold(), known) or list(known)
        raise UsageError(
            f"there is no table or view {name!r}", item=", ".join(like), remedy="name one of these"
        )
    return known[found]
