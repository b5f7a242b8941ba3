"""Sections ``galleries`` and ``problems``: what was searched, and what could not be used."""

from typing import Any

from tasks.results.report.source import Source

PROBLEMS_SHOWN = 50


def galleries(source: Source) -> dict[str, Any]:
    """By category."""
    sql = (
        "SELECT category, images, missing, sha256 FROM galleries\n"
        f"WHERE {source.of_run} ORDER BY category"
    )
    return {"sql": sql, "rows": source.rows(sql)}


def problems(source: Source) -> list[dict[str, Any]]:
    """The first of them."""
    return source.rows(f"SELECT * FROM problems WHERE {source.of_run} LIMIT {PROBLEMS_SHOWN}")
