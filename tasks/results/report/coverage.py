"""Section ``coverage``: what re-ranking can reach."""

from typing import Any

from tasks.results.report.source import Source


def coverage(source: Source) -> dict[str, Any]:
    sql = (
        f"SELECT category, k, coverage, n FROM coverage\nWHERE {source.of_run} ORDER BY category, k"
    )
    rows = source.rows(sql)
    return {
        "sql": sql,
        "ks": sorted({row["k"] for row in rows}),
        "categories": sorted({row["category"] for row in rows}),
        "value": {(row["category"], row["k"]): row["coverage"] for row in rows},
    }
