"""What an open catalog holds, in its own words: SQL over the comments in the file."""

from difflib import get_close_matches

from cir_core.errors import UsageError
from storage.answers import OpenCatalog
from storage.quoting import literal

_OURS = "database_name = current_database() AND NOT internal"


def tables_sql() -> str:
    """Asks for the tables and views, with their rows, where these are counted, and meaning."""
    return f"""
    SELECT 'table' AS kind, table_name AS name, estimated_size AS rows, comment AS about
    FROM duckdb_tables() WHERE {_OURS}
    UNION ALL
    SELECT 'view', view_name, NULL, comment FROM duckdb_views() WHERE {_OURS}
    ORDER BY kind, name"""


def columns_sql(catalog: OpenCatalog, name: str | None) -> str:
    """Asks for the columns of a table or view, or of all, with types and meaning. Raises
    UsageError, with names like it, where there is none of the name."""
    if name is None:
        return f"""
        SELECT table_name AS "table", column_name AS "column", data_type AS "type",
               comment AS about
        FROM duckdb_columns() WHERE {_OURS} ORDER BY table_name, column_index"""
    known = [row["name"] for row in catalog.rows(tables_sql())]
    found = next((one for one in known if one.casefold() == name.casefold()), None)
    if found is None:
        like = get_close_matches(name.casefold(), known) or known
        raise UsageError(
            f"there is no table or view {name!r}", item=", ".join(like), remedy="name one of these"
        )
    return f"""
    SELECT column_name AS "column", data_type AS "type", comment AS about
    FROM duckdb_columns() WHERE {_OURS} AND table_name = {literal(found)} ORDER BY column_index"""
