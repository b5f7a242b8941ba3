"""Sections ``recalls``, ``places`` and ``cirr_average``: how often targets are found, and where."""

from typing import Any

from cir_core.metrics.recall import AVERAGE, MICRO
from tasks.results.report.source import Source
from tasks.results.titles import CIRR_AVERAGE, RECALLS


def recalls(source: Source) -> list[dict[str, Any]]:
    """A table per pool that was ranked, with the SQL that gives its numbers."""
    tables = [_recall_table(source, pool, metric) for pool, metric in RECALLS.items()]
    return [table for table in tables if table["recall"]]


def _recall_table(source: Source, pool: str, metric: str) -> dict[str, Any]:
    """In the categories' order, with the intervals of stage 1, or of the gain."""
    sql = (
        "SELECT category, k, stage1, stage2, gain, n FROM recall\n"
        f"WHERE {source.of_run} AND pool = '{pool}' ORDER BY category, k"
    )
    interval_sql = (
        "SELECT category, k, value, ci_low, ci_high, gallery_images FROM metrics\n"
        f"WHERE {source.of_run} AND stage = '{'gain' if source.is_reranked else 'stage1'}' "
        f"AND metric = '{metric}'"
    )
    recall = {(row["category"], row["k"]): row for row in source.rows(sql)}
    names = sorted(
        {category for category, _ in recall}, key=lambda name: (name in (AVERAGE, MICRO), name)
    )
    published = {name: _published(source, name, metric) for name in names}
    return {
        "pool": pool,
        "metric": metric,
        "ks": sorted({k for _, k in recall}),
        "categories": names,
        "recall": recall,
        "interval": {(row["category"], row["k"]): row for row in source.rows(interval_sql)},
        "published": published,
        "sources": list(dict.fromkeys(one["told"] for of in published.values() for one in of)),
        "sql": f"{sql};\n\n{interval_sql}",
    }


def _published(source: Source, category: str, metric: str) -> list[dict[str, Any]]:
    """Other people's numbers of the same split for a category, in percent by k."""
    rows = []
    for published in source.protocol.published(source.run["split"]):
        recall = {
            k: value
            for (name, kind, k), value in published.values.items()
            if (name, kind) == (category, metric)
        }
        if recall:
            rows.append({"told": f"{published.label}, {published.source}", "recall": recall})
    return rows


def places(source: Source) -> dict[str, Any]:
    """Measures of where targets rank: MRR, and mAP where the protocol has it."""
    sql = (
        "SELECT metric, k, category, stage, value, ci_low, ci_high FROM metrics\n"
        f"WHERE {source.of_run} AND metric IN ('mrr', 'map')\n"
        "ORDER BY metric, k, category IN ('average', 'micro'), category"
    )
    table: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in source.rows(sql):
        table.setdefault((row["metric"], row["k"], row["category"]), {})[row["stage"]] = row
    return {"sql": sql, "rows": table}


def cirr_average(source: Source) -> dict[str, Any] | None:
    """CIRR's headline number, beside the published; None for other datasets."""
    sql = (
        "SELECT stage, value FROM metrics\n"
        f"WHERE {source.of_run} AND metric = 'cirr_average' ORDER BY stage"
    )
    rows = source.rows(sql)
    if not rows:
        return None
    published = [
        {"label": one.label, "source": one.source, "value": value}
        for one in source.protocol.published(source.run["split"])
        for (_, metric, _), value in one.values.items()
        if metric == "cirr_average"
    ]
    return {"title": CIRR_AVERAGE, "rows": rows, "published": published, "sql": sql}
