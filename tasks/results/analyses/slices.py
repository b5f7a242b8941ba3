"""Which kinds of queries are answered better or worse than the others?"""

from collections.abc import Mapping, Sequence
from typing import Any

from cir_core.metrics.significance import (
    Interval,
    difference_interval,
    share_interval,
    wins_interval,
)
from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis, Column, Figure, Numbers, Row
from tasks.results.titles import title_of
from tasks.results.wording import UNLABELLED, counted, is_reranked, of_run, percent, points

QUESTION = "Which kinds of queries are answered well, and which are not?"

SMALL = 100
"""Queries, below which a slice is marked: a recall of one half is known to 10 points at best."""

KS = 1, 10

NEAR = 0.95
"""Cosine of the embeddings of a target and another image, from which that is a near-duplicate."""

SLICES = f"""\
SELECT run_id, query_id, unnest([
    'all queries',
    CASE WHEN has_negation THEN 'negation' ELSE 'no negation' END,
    CASE WHEN words <= 5 THEN 'text: 5 words or fewer' WHEN words <= 10 THEN 'text: 6 to 10 words'
         WHEN words <= 15 THEN 'text: 11 to 15 words' ELSE 'text: 16 words or more' END,
    CASE WHEN changes <= 1 THEN 'changes: 1' WHEN changes <= 3 THEN 'changes: ' || changes
         ELSE 'changes: 4 or more' END,
    CASE WHEN target_has_copy THEN 'target: has a copy' END,
    CASE WHEN target_neighbour_cosine >= {NEAR} THEN 'target: has a near-duplicate' END,
    CASE WHEN is_ambiguous THEN 'ambiguous: asked with other targets, too' END,
    CASE WHEN targets > 1 THEN 'several targets' END
]) AS slice FROM query_traits"""
"""Every query once for each slice that it is in."""

EVERY = "all queries"


def slices(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """Over labelled queries; recall is the run's, pooled over its categories."""
    tables = {k: _rows(catalog, run, k) for k in KS}
    first = tables[KS[0]]
    if not first:
        return Analysis("slices", QUESTION, missing=UNLABELLED)
    return Analysis(
        name="slices",
        question=QUESTION,
        answer=_answer(first),
        advice=_advice(first),
        figures=[_figure(run, first)],
        numbers=[_numbers(run, k, rows) for k, rows in tables.items()],
    )


def _sql(run: Mapping[str, Any], k: int) -> str:
    last = "stage2" if is_reranked(run) else "stage1"
    return f"""\
WITH slices AS (
{SLICES}
),
hits AS (
  SELECT s.slice, (coalesce(m.stage1_rank, {k + 1}) <= {k})::INTEGER AS before,
         (coalesce(m.{last}_rank, {k + 1}) <= {k})::INTEGER AS after
  FROM rank_movement m JOIN slices s USING (run_id, query_id)
  WHERE {of_run(run)} AND m.pool = 'gallery' AND s.slice IS NOT NULL
)
SELECT slice, count(*) AS n, avg(before) AS stage1, avg(after) AS last,
       avg(after) - avg(before) AS gain,
       count(*) FILTER (after > before) AS won, count(*) FILTER (after < before) AS lost,
       count(*) < {SMALL} AS is_small
FROM hits GROUP BY slice ORDER BY slice <> '{EVERY}', slice"""


def _rows(catalog: OpenCatalog, run: Mapping[str, Any], k: int) -> list[Row]:
    """Each with its intervals, and how it differs from all other queries."""
    rows = catalog.rows(_sql(run, k))
    if not rows:
        return []
    whole = rows[0]
    return [_with_intervals(row, whole, reranked=is_reranked(run)) for row in rows]


def _with_intervals(row: Row, whole: Row, *, reranked: bool) -> Row:
    gain = wins_interval(row["won"], row["lost"], row["n"])
    hits, others = _hits(row), whole["n"] - row["n"]
    recall = share_interval(hits, row["n"])
    beside = share_interval(_hits(whole) - hits, others) if others else None
    return {
        **row,
        "gain": row["gain"] if reranked else None,
        "interval": (gain.low, gain.high) if reranked else None,
        "low": recall.low,
        "high": recall.high,
        "differs": None if beside is None else difference_interval(recall, beside),
    }


def _hits(row: Row) -> int:
    return round(row["last"] * row["n"])


def _numbers(run: Mapping[str, Any], k: int, rows: Sequence[Row]) -> Numbers:
    last = [
        Column("last", "stage 2", "percent"),
        Column("gain", "gain", "gain"),
        Column("interval", "95 %", "interval"),
    ]
    return Numbers(
        title=f"{title_of('recall', k)} by kind of query, protocol {run['protocol']}, pooled over "
        f"categories (below {SMALL} queries: a small slice)",
        columns=[
            Column("slice", "queries"),
            Column("n", "n", "count"),
            Column("stage1", "stage 1", "percent"),
            *(last if is_reranked(run) else []),
        ],
        rows=rows,
        sql=_sql(run, k),
    )


def _figure(run: Mapping[str, Any], rows: Sequence[Row]) -> Figure:
    return Figure(
        kind="bars",
        x="queries",
        y="R@1",
        rows=[
            {"x": row["slice"], "y": row["last"], "low": row["low"], "high": row["high"]}
            for row in rows
        ],
        sql=f"SELECT slice AS x, last AS y FROM (\n{_sql(run, KS[0])}\n)",
        described="R@1 of each kind of query in the run's last order, with its 95 % interval.",
        is_percent=True,
    )


def _answer(rows: Sequence[Row]) -> str:
    whole, *others = rows
    told = [
        f"{row['slice']} (n = {row['n']:,}): {percent(row['last'])}, {points(row['differs'])}"
        for row in sorted(others, key=lambda row: row["last"])
        if row["differs"] and _is_apart(row["differs"])
    ]
    begin = f"R@1 is {percent(whole['last'])} over {counted(whole['n'], 'query', 'queries')}. "
    if not told:
        return begin + "No kind of query differs from all others beyond its interval."
    return (
        begin
        + "Against all others, these differ beyond a 95 % interval, the worst first: "
        + "; ".join(told)
        + f". (Of {counted(len(others), 'kind')}, one in twenty differs by chance.)"
    )


def _is_apart(differs: Interval) -> bool:
    return differs.low > 0 or differs.high < 0


def _advice(rows: Sequence[Row]) -> str:
    told = []
    by_name = {row["slice"]: row for row in rows}
    worse = {
        name
        for name, row in by_name.items()
        if row["differs"] is not None and row["differs"].high < 0
    }
    if "negation" in worse:
        told.append(
            "Negated words cost recall: train on more negations, or word them as what is wanted."
        )
    if worse & {"changes: 3", "changes: 4 or more", "text: 16 words or more"}:
        told.append("Long texts of many changes cost recall: ask for them one after the other.")
    if worse & {"changes: 1", "text: 5 words or fewer"}:
        told.append("Short texts leave much open: their targets are some of many that fit.")
    if "target: has a copy" in worse:
        told.append("Copies of targets count as wrong answers: remove them, or label them, too.")
    if "target: has a near-duplicate" in worse:
        told.append(
            f"Near-duplicates of targets (cosine {NEAR} or more) take their places: look whether "
            "they are right answers, too."
        )
    if "ambiguous: asked with other targets, too" in worse:
        told.append("Ambiguous queries have right answers that are not labelled: label them.")
    lost = [row["slice"] for row in rows if row["interval"] is not None and row["interval"][1] < 0]
    if lost:
        told.append(f"Re-ranking lowers R@1 of: {'; '.join(lost)}. Look at these queries.")
    small = sum(row["is_small"] for row in rows)
    if small:
        told.append(
            f"{counted(small, 'kind')} of fewer than {SMALL} queries: say nothing of these without "
            "their intervals."
        )
    return " ".join(told)
