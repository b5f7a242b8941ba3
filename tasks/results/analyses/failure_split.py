"""Where are the targets that are not found: lost in stage 1, or ordered wrong?"""

from collections.abc import Mapping, Sequence
from typing import Any

from cir_core.protocols import PROTOCOLS
from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import (
    Analysis,
    Asked,
    Column,
    Figure,
    Numbers,
    asked,
    small_marked,
)
from tasks.results.analyses.wording import candidates_of

FOUND, ORDERED_WRONG, LOST = "found", "ordered wrong", "lost in stage 1"
CANNOT = "cannot be answered"
OUTCOMES = FOUND, ORDERED_WRONG, LOST, CANNOT
"""Of a query at a depth k; the last three as the view ``failures`` has them."""


def failure_split(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """By depth over all labelled queries together, and by category at the first place."""
    depths = sorted({*PROTOCOLS[run["protocol"]].ks, 1})
    categories = asked(catalog, _by_category(run["run_id"]))
    question = "Are targets lost in stage 1, or ordered wrong?"
    if not categories["rows"]:
        missing = "The queries have no labels: nobody knows what a failure is."
        return Analysis("failure_split", question, missing=missing)
    totals = {one: sum(row[_field(one)] for row in categories["rows"]) for one in OUTCOMES}
    is_reranked = run["stage2_sha256"] is not None
    return Analysis(
        name="failure_split",
        question=question,
        answer=_answer(totals, candidates_of(run), is_reranked=is_reranked),
        advice=_advice(totals, candidates_of(run), is_reranked=is_reranked),
        figures=[_figure(catalog, outcomes_sql(run["run_id"], depths))],
        numbers=[_table(categories, has_unanswered=totals[CANNOT] > 0)],
    )


def outcomes_sql(run_id: str, depths: Sequence[int]) -> str:
    """Shares of the outcomes when the first k places count, for each depth k: ``x`` tells it,
    ``series`` the outcome, ``y`` the share and ``n`` the queries; none that no query has."""
    return (
        "WITH last AS (\n"
        "    SELECT coalesce(f.reason, 'found') AS reason, coalesce(CASE WHEN r.stage2_sha256 IS "
        "NULL\n"
        "        THEN m.stage1_rank ELSE m.stage2_rank END, 2147483647) AS rank\n"
        "    FROM rank_movement m JOIN runs r USING (run_id)\n"
        "    LEFT JOIN failures f USING (run_id, query_id, pool)\n"
        f"    WHERE m.run_id = '{run_id}' AND m.pool = 'gallery'\n"
        ")\n"
        "SELECT 'first ' || k AS x, k,\n"
        "       CASE WHEN rank <= k THEN 'found' ELSE reason END AS series,\n"
        "       count(*) / sum(count(*)) OVER (PARTITION BY k) AS y, count(*) AS n\n"
        f"FROM last CROSS JOIN (SELECT unnest({list(depths)}) AS k)\n"
        f"GROUP BY k, series ORDER BY k, list_position({list(OUTCOMES)}, series)"
    )


def _by_category(run_id: str) -> str:
    counts = ",\n       ".join(
        f"count(*) FILTER (coalesce(reason, 'found') = '{one}') AS {_field(one)}"
        for one in OUTCOMES
    )
    shares = ", ".join(f"{_field(one)} / n AS {_field(one)}_share" for one in OUTCOMES)
    return (
        f"SELECT *, {shares}\nFROM (\n"
        f"SELECT m.category, count(*) AS n,\n       {counts}\n"
        "FROM rank_movement m LEFT JOIN failures f USING (run_id, query_id, pool)\n"
        f"WHERE m.run_id = '{run_id}' AND m.pool = 'gallery' GROUP BY m.category\n"
        ") ORDER BY category"
    )


def _field(outcome: str) -> str:
    return outcome.replace(" ", "_")


def _answer(totals: Mapping[str, int], candidates: str, *, is_reranked: bool) -> str:
    n = sum(totals.values())
    failed = n - totals[FOUND]
    if not failed:
        return f"Neither: the target of every one of the {n:,} queries comes first."
    whose = "stage 2 orders" if is_reranked else "stage 1 orders"
    told = (
        f"Of {n:,} queries, {_part(failed, n)} do not have their target first: "
        f"{whose} {_part(totals[ORDERED_WRONG], failed)} of these wrong, and stage 1 loses "
        f"{_part(totals[LOST], failed)}, whose target is not among the {candidates}."
    )
    if totals[CANNOT]:
        told += f" {totals[CANNOT]:,} cannot be answered: see the problems."
    return told


def _advice(totals: Mapping[str, int], candidates: str, *, is_reranked: bool) -> str:
    if not is_reranked:
        return (
            "Re-ranking can mend what is ordered wrong, and cannot bring back what is lost. "
            "`cir-pipeline run` with a stage 2 goes on from these candidates."
        )
    if totals[LOST] > totals[ORDERED_WRONG]:
        return (
            f"Stage 1 is the place to work: more than {candidates}, or better ones, would give "
            "stage 2 what it cannot reach now."
        )
    if totals[ORDERED_WRONG] > totals[LOST]:
        return (
            "Stage 2 is the place to work: more targets are missed among its "
            f"{candidates} than beyond them, and a larger K would not mend these."
        )
    if totals[LOST]:
        return "Work on either stage: as many targets are lost as are ordered wrong."
    return ""


def _part(count: int, of: int) -> str:
    return f"{count:,} ({100 * count / of:.1f} %)" if of else f"{count:,}"


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


def _table(categories: Asked, *, has_unanswered: bool) -> Numbers:
    outcomes = OUTCOMES if has_unanswered else OUTCOMES[:-1]
    columns = [Column("category", "category"), Column("n", "queries", "count")]
    for one in outcomes:
        columns.append(Column(_field(one), "first" if one == FOUND else one, "count"))
        columns.append(Column(f"{_field(one)}_share", "%", "percent"))
    rows = small_marked(categories["rows"])
    return Numbers("At the first place, by category", columns, rows, categories["sql"])
