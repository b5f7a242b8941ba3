"""Sections ``galleries`` and ``problems``: what was searched, and what could not be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.results.report.source import Source

PROBLEMS_SHOWN = 50


@dataclass(frozen=True)
class Problems:
    """How many there are of each kind, and the first of them, each with a picture of its image, or
    of its query's reference, as ``Picture.inline``, where that can be shown."""

    kinds: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    sql: str

    @property
    def count(self) -> int:
        return sum(row["n"] for row in self.kinds)


def galleries(source: Source) -> dict[str, Any]:
    """By category."""
    sql = (
        "SELECT category, images, missing, sha256 FROM galleries\n"
        f"WHERE {source.of_run} ORDER BY category"
    )
    return {"sql": sql, "rows": source.rows(sql)}


def problems(source: Source) -> Problems:
    kinds_sql = (
        f"SELECT kind, count(*) AS n FROM problems WHERE {source.of_run}\n"
        "GROUP BY kind ORDER BY n DESC, kind"
    )
    sql = (
        "SELECT p.item, p.kind, p.message, q.query_id, q.text,\n"
        "       coalesce(q.reference_id, p.item) AS shown\n"
        "FROM problems p\n"
        "LEFT JOIN (SELECT DISTINCT run_id, query_id, kind FROM query_problems) asked\n"
        "  ON asked.run_id = p.run_id AND asked.query_id = p.item AND asked.kind = p.kind\n"
        "LEFT JOIN queries q ON q.run_id = asked.run_id AND q.query_id = asked.query_id\n"
        f"WHERE p.{source.of_run} ORDER BY p.kind, p.item LIMIT {PROBLEMS_SHOWN}"
    )
    rows = source.rows(sql)
    return Problems(
        kinds=source.rows(kinds_sql),
        rows=_with_pictures(source, rows) if rows else [],
        sql=f"{kinds_sql};\n\n{sql}",
    )


def _with_pictures(source: Source, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    pictures = source.album.pictures([row["shown"] for row in rows], Path(), files=0)
    return [{**row, "picture": one.inline} for row, one in zip(rows, pictures, strict=True)]
