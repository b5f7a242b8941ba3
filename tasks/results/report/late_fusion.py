"""Section ``late_fusion``: what the weight of a fitted late fusion was chosen from."""

from typing import Any

from tasks.results.report.source import Source


def late_fusion(source: Source) -> dict[str, Any]:
    """Recall of the queries that a late fusion was fitted on, by weight and k."""
    sql = (
        "SELECT weight, k, recall, n, is_chosen FROM late_fusion_curve\n"
        f"WHERE {source.of_run} ORDER BY weight, k"
    )
    found = source.rows(sql)
    rows: dict[float, dict[int, float]] = {}
    for row in found:
        rows.setdefault(row["weight"], {})[row["k"]] = row["recall"]
    n = found[0]["n"] if found else 0
    return {"sql": sql, "ks": sorted({row["k"] for row in found}), "rows": rows, "n": n}
