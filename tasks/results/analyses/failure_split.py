"""Where are the targets that are not found: lost in stage 1, or ordered wrong?"""

from collections.abc import Mapping, Sequence
from typing import Any

from cir_core.protocols import PROTOCOLS
from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import (
    Analysis,
    Answered,
    Column,
    Figure,
    Numbers,
    asked,
    small_marked,
)
from tasks.results.wording import (
    UNLABELLED,
    counted,
    is_reranked,
    more_candidates,
    of_run,
    part,
    without_target,
)
from tasks.stages.target_ranks import NEVER

QUESTION = "Are targets lost in stage 1, or ordered wrong?"

FOUND, ORDERED_WRONG, LOST = "found", "ordered wrong", "lost in stage 1"
CANNOT = "cannot be answered"
OUTCOMES = FOUND, ORDERED_WRONG, LOST, CANNOT
"""Of a query at a depth k; the last three as the view ``failures`` has them."""


def failure_split(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """By depth over all labelled queries together, and by category at the first place."""
    depths = sorted({*PROTOCOLS[run["protocol"]].ks, 1})
    categories = asked(catalog, _by_category(run))
    if not categories["rows"]:
        return Analysis("failure_split", QUESTION, missing=UNLABELLED)
    totals = {one: sum(row[_field(one)] for row in categories["rows"]) for one in OUTCOMES}
    return Analysis(
        name="failure_split",
        question=QUESTION,
        answer=_answer(run, totals),
        advice=_advice(run, totals),
        figures=[_figure(catalog, outcomes_sql(run, depths))],
        numbers=[_table(categories, has_unanswered=totals[CANNOT] > 0)],
    )


def outcomes_sql(run: Mapping[str, Any], depths: Sequence[int]) -> str:
    """Shares of the outcomes when the first k places count, for each depth k: ``x`` tells it,
    ``series`` the outcome, ``y`` the share and ``n`` the queries; none that no query has."""
    last = "stage2_rank" if is_reranked(run) else "stage1_rank"
    return (
        "WITH last AS (\n"
        f"    SELECT coalesce(f.reason, '{FOUND}') AS reason, coalesce(m.{last}, {NEVER}) AS rank\n"
        "    FROM rank_movement m LEFT JOIN failures f USING (run_id, query_id, pool)\n"
        f"    WHERE {of_run(run, 'm.')} AND m.pool = 'gallery'\n"
        ")\n"
        "SELECT 'first ' || k AS x, k,\n"
        f"       CASE WHEN rank <= k THEN '{FOUND}' ELSE reason END AS series,\n"
        "       count(*) / sum(count(*)) OVER (PARTITION BY k) AS y, count(*) AS n\n"
        f"FROM last CROSS JOIN (SELECT unnest({list(depths)}) AS k)\n"
        f"GROUP BY k, series ORDER BY k, list_position({list(OUTCOMES)}, series)"
    )


def _by_category(run: Mapping[str, Any]) -> str:
    counts = ",\n       ".join(
        f"count(*) FILTER (coalesce(reason, '{FOUND}') = '{one}') AS {_field(one)}"
        for one in OUTCOMES
    )
    shares = ", ".join(f"{_field(one)} / n AS {_field(one)}_share" for one in OUTCOMES)
    return (
        f"SELECT *, {shares}\nFROM (\n"
        f"SELECT m.category, count(*) AS n,\n       {counts}\n"
        "FROM rank_movement m LEFT JOIN failures f USING (run_id, query_id, pool)\n"
        f"WHERE {of_run(run, 'm.')} AND m.pool = 'gallery' GROUP BY m.category\n"
        ") ORDER BY category"
    )


def _field(outcome: str) -> str:
    return outcome.replace(" ", "_")


def _answer(run: Mapping[str, Any], totals: Mapping[str, int]) -> str:
    n = sum(totals.values())
    failed = n - totals[FOUND]
    if not failed:
        return f"Neither: of {counted(n, 'query', 'queries')}, each has its target first."
    told = (
        f"{without_target(failed, n)}: stage {2 if is_reranked(run) else 1} orders "
        f"{part(totals[ORDERED_WRONG], failed)} of these wrong, and stage 1 loses "
        f"{part(totals[LOST], failed)}, whose target is not among the candidates."
    )
    if totals[CANNOT]:
        told += f" {totals[CANNOT]:,} cannot be answered: see the problems."
    return told


def _advice(run: Mapping[str, Any], totals: Mapping[str, int]) -> str:
    if not is_reranked(run):
        return (
            "Re-ranking can mend what is ordered wrong, and cannot bring back what is lost. "
            "`cir-pipeline run` with a stage 2 goes on from these candidates."
        )
    if totals[LOST] > totals[ORDERED_WRONG]:
        return (
            f"Stage 1 is the place to work: {more_candidates(run)}, or a better model, would give "
            "stage 2 what it cannot reach now."
        )
    if totals[ORDERED_WRONG] > totals[LOST]:
        return (
            "Stage 2 is the place to work: more targets are missed among the candidates than "
            f"beyond them, and {more_candidates(run)} would not mend these."
        )
    if totals[LOST]:
        return "Work on either stage: as many targets are lost as are ordered wrong."
    return ""


def _figure(catalog: OpenCatalog, sql: str) -> Figure:
    return Figure(
        kind="bars",
        x="places that count",
        y="share of queries",
        described="Of all labelled queries, what share has its target among the first places, "
        "misses it although it is a candidate, or lost it in stage 1.",
        is_percent=True,
        is_stacked=True,
        **asked(catalog, sql),
    )


def _table(categories: Answered, *, has_unanswered: bool) -> Numbers:
    outcomes = OUTCOMES if has_unanswered else OUTCOMES[:-1]
    columns = [Column("category", "category"), Column("n", "queries", "count")]
    for one in outcomes:
        columns.append(Column(_field(one), "first" if one == FOUND else one, "count"))
        columns.append(Column(f"{_field(one)}_share", "%", "percent"))
    rows = small_marked(categories["rows"])
    return Numbers("At the first place, by category", columns, rows, categories["sql"])
