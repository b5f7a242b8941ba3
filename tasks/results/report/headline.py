"""A run's headline: the metric by which its protocol's results are first compared, and the most
that re-ranking can make of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cir_core.metrics.recall import AVERAGE, CIRR_AVERAGE_K
from cir_core.metrics.significance import Interval, gain_interval
from tasks.results.report.source import Source
from tasks.results.titles import CIRR_AVERAGE, title_of
from tasks.stages.target_ranks import NEVER


@dataclass(frozen=True)
class Headline:
    """``depth``: how many places count. ``stage2`` and ``gain`` are None where nothing was
    re-ranked. ``ceiling`` is what the best order of the candidates would have, a fraction; None
    where that is not known. ``sql`` recomputes them."""

    name: str
    depth: int
    stage1: Interval
    stage2: Interval | None
    gain: Interval | None
    ceiling: float | None
    sql: str


def headline(source: Source) -> Headline | None:
    """None of queries without labels. Where K is not above a recall's k, re-ranking cannot change
    that: then it is the largest recall of the protocol that it can."""
    metric, k = source.protocol.headline
    below = [one for one in source.protocol.ks if one < source.run["k"]]
    if metric == "recall" and source.is_reranked and below:
        k = min(k, max(below))
    sql = (
        "SELECT stage, category, value, ci_low, ci_high FROM metrics\n"
        f"WHERE {source.of_run} AND pool = 'gallery' AND metric = '{metric}' AND k = {k}\n"
        f"ORDER BY category <> '{AVERAGE}'"
    )
    rows = source.rows(sql)
    if not rows:
        return None
    stages = {
        row["stage"]: _interval(row) for row in rows if row["category"] == rows[0]["category"]
    }
    gain, statements = stages.get("gain"), [sql]
    if metric == "cirr_average" and source.is_reranked:
        gains_sql = _cirr_gains_sql(source)
        gain = gain_interval([np.array([row["gain"] for row in source.rows(gains_sql)])])
        statements.append(gains_sql)
    ceiling_sql = _ceiling_sql(source, metric, k)
    ceiling = source.rows(ceiling_sql)[0]["ceiling"] if ceiling_sql else None
    return Headline(
        name=f"the {CIRR_AVERAGE}" if metric == "cirr_average" else title_of(metric, k),
        depth=k or CIRR_AVERAGE_K,
        stage1=stages["stage1"],
        stage2=stages.get("stage2"),
        gain=gain,
        ceiling=ceiling,
        sql=";\n\n".join([*statements, *([ceiling_sql] if ceiling_sql else [])]),
    )


def _interval(row: Mapping[str, Any]) -> Interval:
    return Interval(row["value"], row["ci_low"], row["ci_high"])


def _cirr_gains_sql(source: Source) -> str:
    """The average's gain of each query: metrics have the average of either stage alone."""
    hits = {
        stage: f"(coalesce(g.{stage}_rank, {NEVER}) <= {CIRR_AVERAGE_K})::INTEGER "
        f"+ (coalesce(s.{stage}_rank, {NEVER}) <= 1)::INTEGER"
        for stage in ("stage1", "stage2")
    }
    return (
        f"SELECT ({hits['stage2']}\n        - ({hits['stage1']})) / 2 AS gain\n"
        "FROM rank_movement g JOIN rank_movement s USING (run_id, query_id)\n"
        f"WHERE {source.of_run} AND g.pool = 'gallery' AND s.pool = 'subset'"
    )


def _ceiling_sql(source: Source, metric: str, k: int) -> str | None:
    """What the best order of the K candidates gives, macro-averaged over the categories. A subset
    that is scored on its own can always be ordered right; one in the main order, who knows."""
    if metric == "cirr_average" and source.protocol.subset != "scored":
        return None
    most = k or CIRR_AVERAGE_K
    of_query = f"(is_candidate OR coalesce(stage1_rank, {NEVER}) <= {most})::DOUBLE"
    tables, pool = "rank_movement q", " AND q.pool = 'gallery'"
    if metric == "map":
        of_query = f"least(coalesce(t.reached, 0), {k}) / least(len(q.targets), {k})"
        tables = (
            "queries q LEFT JOIN (\n"
            "        SELECT query_id, count(*) AS reached\n"
            "        FROM target_ranks LEFT JOIN (\n"
            "            SELECT run_id, query_id, image_id, true AS is_candidate FROM candidates\n"
            "            WHERE pool = 'gallery'\n"
            "        ) USING (run_id, query_id, image_id)\n"
            f"        WHERE {source.of_run} AND (is_candidate OR stage1_rank <= {most})\n"
            "        GROUP BY query_id\n"
            "    ) t USING (query_id)"
        )
        pool = ""
    ceiling = "(avg(reached) + 1) / 2" if metric == "cirr_average" else "avg(reached)"
    return (
        f"SELECT {ceiling} AS ceiling FROM (\n    SELECT avg({of_query}) AS reached\n"
        f"    FROM {tables}\n"
        f"    WHERE q.{source.of_run} AND q.targets IS NOT NULL{pool} GROUP BY q.category\n)"
    )
