"""Section ``late_fusion``: what the weight of a fitted late fusion was chosen from."""

from typing import Any

from tasks.results.analyses.analysis import Figure, asked
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
    ks = sorted({row["k"] for row in found})
    return {"sql": sql, "ks": ks, "rows": rows, "n": n, "figure": _figure(source)}


def _figure(source: Source) -> Figure:
    sql = (
        "SELECT weight AS x, 'R@' || k AS series, recall AS y FROM late_fusion_curve\n"
        f"WHERE {source.of_run} ORDER BY k, weight"
    )
    return Figure(
        kind="line",
        x="weight of stage 1's score",
        y="recall",
        described="Recall of the queries that the weight was fitted on, over the weight.",
        rules={"chosen": source.run["late_fusion"]} if source.run["late_fusion"] else None,
        is_percent=True,
        **asked(source.catalog, sql),
    )
