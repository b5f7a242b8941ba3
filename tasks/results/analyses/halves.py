"""Does a query need both of its halves? Its target's rank by the image and by the text alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from cir_core.metrics.significance import Interval, share_interval, wins_interval
from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis, Column, Figure, Numbers, Row
from tasks.results.titles import title_of
from tasks.results.wording import (
    NOT_ANALYSED,
    UNLABELLED,
    counted,
    of_run,
    percent,
    points,
    sentences,
)

QUESTION = "Does the query need both halves?"

KS = 1, 10

AUDIT = (
    "(A public audit of 2026 found 32 to 84 % of the queries of such benchmarks solvable from one "
    "half.)"
)

MOST = 0.5
"""Of queries that one half solves: from here on recall tells more of that half than of both."""


def halves(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """Over labelled queries; those that could not be asked are misses of all."""
    rows = [_with_gap(row) for row in catalog.rows(_sql(run))]
    if not rows:
        return Analysis("halves", QUESTION, missing=UNLABELLED)
    if not rows[0]["asked"]:
        return Analysis("halves", QUESTION, missing=NOT_ANALYSED)
    last = rows[-1]
    return Analysis(
        name="halves",
        question=QUESTION,
        answer=_answer(run, last),
        advice=_advice(last),
        figures=[_figure(run, last)],
        numbers=[_numbers(run, rows)],
    )


def _sql(run: Mapping[str, Any]) -> str:
    return f"""\
WITH hits AS (
  SELECT k, p.query_id, p.text_rank,
         coalesce(p.composed_rank <= k, false) AS composed,
         coalesce(p.image_rank <= k, false) AS image,
         coalesce(p.text_rank <= k, false) AS text
  FROM (SELECT *, unnest({list(KS)}) AS k FROM queries WHERE {of_run(run)}) q
  LEFT JOIN probes p USING (run_id, query_id)
  WHERE q.targets IS NOT NULL
)
SELECT k, count(*) AS n, count(query_id) AS asked,
       avg(composed::INTEGER) AS composed, avg(image::INTEGER) AS image,
       CASE WHEN count(text_rank) > 0 THEN avg(text::INTEGER) END AS text,
       avg((image OR text)::INTEGER) AS either,
       avg((composed AND NOT (image OR text))::INTEGER) AS only_both,
       avg(composed::INTEGER) - greatest(avg(image::INTEGER), avg(text::INTEGER)) AS gap,
       count(*) FILTER (composed AND NOT image) AS beyond_image,
       count(*) FILTER (image AND NOT composed) AS image_beyond,
       count(*) FILTER (composed AND NOT text) AS beyond_text,
       count(*) FILTER (text AND NOT composed) AS text_beyond
FROM hits GROUP BY k ORDER BY k"""


def _with_gap(row: Row) -> Row:
    """With the interval of what the whole query finds more than its better half."""
    better = "text" if (row["text"] or 0) > row["image"] else "image"
    gap = wins_interval(row[f"beyond_{better}"], row[f"{better}_beyond"], row["n"])
    return {**row, "better": better, "interval": (gap.low, gap.high)}


def _numbers(run: Mapping[str, Any], rows: Sequence[Row]) -> Numbers:
    return Numbers(
        title=f"R@k of stage 1 by the halves of a query, protocol {run['protocol']}, pooled "
        "over categories",
        columns=[
            Column("k", "k", "count"),
            Column("n", "queries", "count"),
            Column("image", "image alone", "percent"),
            Column("text", "text alone", "percent"),
            Column("either", "either", "percent"),
            Column("composed", "whole query", "percent"),
            Column("only_both", "only both", "percent"),
            Column("gap", "composition gap", "gain"),
            Column("interval", "95 %", "interval"),
        ],
        rows=rows,
        sql=_sql(run),
    )


def _figure(run: Mapping[str, Any], row: Row) -> Figure:
    named = {
        "image alone": "image",
        "text alone": "text",
        "either half": "either",
        "whole query": "composed",
        "only both": "only_both",
    }
    columns = {name: field for name, field in named.items() if row[field] is not None}
    names, fields = list(columns), ", ".join(columns.values())
    return Figure(
        kind="bars",
        x="asked with",
        y=title_of("recall", row["k"]),
        rows=[{"x": name, **_bar(row[field], row["n"])} for name, field in columns.items()],
        sql=f"SELECT unnest({names}) AS x, unnest([{fields}]) AS y\nFROM (\n{_sql(run)}\n)\n"
        f"WHERE k = {row['k']}",
        described="Recall of stage 1 when it is asked with the reference alone, with the text "
        "alone, and with both; and the share of queries that only both answer.",
        is_percent=True,
    )


def _bar(share: float, n: int) -> dict[str, float]:
    value, low, high = share_interval(round(share * n), n)
    return {"y": value, "low": low, "high": high}


def _answer(run: Mapping[str, Any], row: Row) -> str:
    text = (
        "stage 1 cannot be asked by text alone"
        if row["text"] is None
        else (f"the text alone {percent(row['text'])}, either of them {percent(row['either'])}")
    )
    whose = {
        "candidates": " (by the run's own stage 1, not by the file of candidates)",
        "embeddings": " (by the given embeddings)",
    }
    return sentences(
        f"Among the first {row['k']}, the image alone finds the target of "
        f"{percent(row['image'])} of {counted(row['n'], 'query', 'queries')}, {text}; the whole "
        "query finds "
        f"{percent(row['composed'])}{whose.get(run['first_stage'], '')}.",
        f"Only both together find {percent(row['only_both'])}.",
        f"The composition gap, over the better half ({row['better']}), is {points(_gap(row))}.",
        AUDIT,
    )


def _gap(row: Row) -> Interval:
    low, high = row["interval"]
    return Interval(row["composed"] - row[row["better"]], low, high)


def _advice(row: Row) -> str:
    gap = _gap(row)
    if gap.low <= 0:
        return (
            f"The whole query does no better than its {row['better']} alone, as far as these "
            "queries tell: stage 1 does not compose. Train it on triplets, or weigh the other half "
            "more (`--text-weight`, of a stage 1 that has one)."
        )
    if row["either"] >= MOST:
        return (
            "One half solves most of these queries: compare models on those that need both, too "
            "(SQL: `probes`, where image_rank and text_rank are beyond k)."
        )
    return "Most of these queries need both halves: recall here measures composition."
