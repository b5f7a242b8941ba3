"""Do the two stages order a query's candidates alike?"""

from collections.abc import Mapping
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Column, Numbers, Row, asked
from tasks.results.wording import late_fusion, of_run

SHOWN = 10
"""Queries whose orders differ most."""

MUCH, LITTLE = 0.9, 0.3
"""A correlation above which stage 2 hardly says anything of its own, and below which the two
stages judge by other things: 81 % and 9 % of variance shared."""

WITHIN = "within a query, on average"


def _correlation_sql(run: Mapping[str, Any]) -> str:
    return f"""\
WITH pairs AS (
  SELECT stage1_score::DOUBLE AS score1, stage2_score::DOUBLE AS score2,
         rank() OVER (ORDER BY stage1_score)
           + (count(*) OVER (PARTITION BY stage1_score) - 1) / 2 AS place1,
         rank() OVER (ORDER BY stage2_score)
           + (count(*) OVER (PARTITION BY stage2_score) - 1) / 2 AS place2
  FROM rankings WHERE {of_run(run)} AND pool = 'gallery'
)
SELECT 'over all pairs' AS over, count(*) AS n,
       CASE WHEN min(score1) < max(score1) AND min(score2) < max(score2)
            THEN corr(score1, score2) END AS pearson,
       CASE WHEN min(score1) < max(score1) AND min(score2) < max(score2)
            THEN corr(place1, place2) END AS spearman
FROM pairs
UNION ALL
SELECT '{WITHIN}', count(*), avg(pearson), avg(spearman)
FROM stage_agreement WHERE {of_run(run)}"""


def within_queries(correlated: Numbers) -> Row:
    """The correlations of a query's candidates, on average."""
    return next(row for row in correlated.rows if row["over"] == WITHIN)


def told_of_correlation(correlation: Row | None) -> str:
    if correlation is None or correlation["pearson"] is None:
        return ""
    return (
        f"Within a query, the two stages' scores correlate by {correlation['pearson']:.2f} "
        f"(Pearson), their orders by {correlation['spearman']:.2f} (Spearman), on average."
    )


def correlations(catalog: OpenCatalog, run: Mapping[str, Any]) -> Numbers:
    return Numbers(
        title="Correlation of the two stages' scores (pairs, then queries)",
        columns=[
            Column("over", "over"),
            Column("n", "n", "count"),
            Column("pearson", "Pearson", "number"),
            Column("spearman", "Spearman", "number"),
        ],
        **asked(catalog, _correlation_sql(run)),
    )


def disagreements(catalog: OpenCatalog, run: Mapping[str, Any]) -> Numbers:
    sql = (
        "SELECT m.query_id, m.stage1_rank, m.stage2_rank, -m.places_gained AS places_lost,\n"
        "       a.spearman, m.text\n"
        "FROM rank_movement m JOIN stage_agreement a USING (run_id, query_id)\n"
        f"WHERE {of_run(run, 'm.')} AND m.pool = 'gallery' AND m.places_gained < 0\n"
        f"ORDER BY places_lost DESC, m.query_id LIMIT {SHOWN}"
    )
    return Numbers(
        title="Where the stages disagree: the queries whose target stage 2 moved down most",
        columns=[
            Column("query_id", "query", "query"),
            Column("stage1_rank", "rank before", "count"),
            Column("stage2_rank", "rank after", "count"),
            Column("places_lost", "places lost", "count"),
            Column("spearman", "Spearman of the orders", "number"),
            Column("text", "text"),
        ],
        **asked(catalog, sql),
    )


def advice_on_correlation(run: Mapping[str, Any], correlation: Row | None) -> str:
    if correlation is None or correlation["spearman"] is None:
        return ""
    if correlation["spearman"] >= MUCH:
        return "Stage 2 repeats stage 1's order, and adds little of its own."
    if correlation["spearman"] <= LITTLE:
        return (
            "The stages judge by different things; a late fusion of both scores may beat either "
            f"({late_fusion(run)})."
        )
    return ""
