"""The views of ``cir.duckdb``: SQL beside this module, and what it says of them as comments that a
shell shows."""

import re
from importlib import resources
from typing import TYPE_CHECKING

from storage.quoting import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILES = ("views.sql", "k_curve.sql", "analyses.sql", "ties.sql")
"""Below ``storage/sql``, in the order in which they are read."""

_COMMENTED = re.compile(r"((?:^-- .*\n)+)^CREATE VIEW (\w+)", re.MULTILINE)

_MEANT = """
WITH told AS (
    SELECT column_name, any_value(comment) AS comment FROM duckdb_columns()
    WHERE database_name = current_database() AND comment IS NOT NULL
      AND table_name IN (SELECT table_name FROM duckdb_tables())
    GROUP BY ALL HAVING count(DISTINCT comment) = 1
)
SELECT table_name, column_name, told.comment
FROM duckdb_columns() found JOIN told USING (column_name)
WHERE database_name = current_database() AND NOT internal AND found.comment IS NULL
"""


def views() -> str:
    """Makes the views; the lines of comment above each are its comment in the catalog, too."""
    folder = resources.files("storage") / "sql"
    sql = "\n".join((folder / name).read_text(encoding="utf-8") for name in FILES)
    return "\n".join([sql, *(_comment(lines, view) for lines, view in _COMMENTED.findall(sql))])


def describe_columns(connection: "DuckDBPyConnection") -> None:
    """A view's column without a comment means what the tables' columns of its name mean, where
    these are told alike."""
    comments = [
        f"COMMENT ON COLUMN {quoted(view)}.{quoted(column)} IS {literal(about)};"
        for view, column, about in connection.execute(_MEANT).fetchall()
    ]
    connection.execute("\n".join(comments))


def _comment(lines: str, view: str) -> str:
    words = " ".join(line.removeprefix("-- ") for line in lines.splitlines())
    return f"COMMENT ON VIEW {view} IS {literal(words)};"
