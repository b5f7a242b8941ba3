"""Do scores tie? Equal scores leave the order, and what is measured of it, to the gallery's."""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis, Column, Numbers, Row
from tasks.results.titles import STAGES
from tasks.results.wording import counted, of_run, percent, sentences

QUESTION = "Do scores tie, and does a number hang on it?"

BF16_BITS = 7
"""Of a bf16 number, behind its first one."""

MANY = 0.001
"""Of the neighbours, ties that are no chance any more: fp32 has 2^23 numbers between two powers of
two, and the demo's 63,504 neighbours have one or two ties."""


def ties(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    sql = (
        "SELECT pool, stage, neighbours, tied, copies, queries, with_target,\n"
        "       mrr, mrr_least, mrr_most\n"
        f"FROM ties WHERE {of_run(run)} ORDER BY pool, stage"
    )
    rows = catalog.rows(sql)
    if not any(row["neighbours"] for row in rows):
        return Analysis("ties", QUESTION, missing="No query has two candidates.")
    coarse = catalog.rows(_coarse_sql(run))
    return Analysis(
        name="ties",
        question=QUESTION,
        answer=sentences(*map(_told, rows), _told_of_coarse(coarse)),
        advice=_advice(rows),
        numbers=[_table(rows, sql), _coarse_table(run, coarse)],
    )


def _told(row: Row) -> str:
    where = f"{STAGES[row['stage']]}{'' if row['pool'] == 'gallery' else ' in the subset'}"
    neighbours = counted(row["neighbours"], "pair of neighbours", "pairs of neighbours")
    if not row["tied"]:
        return f"In {where}, none of {neighbours} has equal scores."
    if row["tied"] == row["neighbours"]:
        return f"In {where} every score is the same: its order is the gallery's, and says nothing."
    has = "has" if row["tied"] == 1 else "have"
    copies = counted(row["copies"], "of these is", "of these are")
    told = (
        f"In {where}, {row['tied']:,} of {neighbours} {has} equal scores, in "
        f"{counted(row['queries'], 'query', 'queries')} ({copies} between copies of one picture)"
    )
    if not row["with_target"]:
        return f"{told}; none of them with a target, so that no number hangs on their order."
    bounds = "" if row["mrr"] is None else f", and the MRR {_bounds(row)}"
    return f"{told}; a target is among them in {row['with_target']:,}{bounds}."


def _bounds(row: Row) -> str:
    least, mrr, most = (f"{row[name]:.4f}" for name in ("mrr_least", "mrr", "mrr_most"))
    return f"is {mrr}, but would be from {least} to {most} in another order"


def _told_of_coarse(rows: Sequence[Row]) -> str:
    told = [
        f"{row['tied']:,} ({percent(row['tied'] / row['neighbours'])}) of {STAGES[row['stage']]}"
        for row in rows
        if row["neighbours"]
    ]
    return f"Kept in bf16, scores would tie {' and '.join(told)}; they are kept in fp32."


def _advice(rows: Sequence[Row]) -> str:
    chance = [row for row in rows if row["tied"] - row["copies"] > MANY * row["neighbours"]]
    if chance:
        return (
            "Different pictures tie far more often than by chance: look whether the model's last "
            "operation is in a low precision, or its scores are saturated, and tell mrr_least and "
            "mrr_most with every number."
        )
    if any(row["copies"] and row["with_target"] for row in rows):
        return (
            "Copies of targets are in the gallery: whichever comes first there is right by the "
            "gallery's order alone."
        )
    return ""


def _table(rows: Sequence[Row], sql: str) -> Numbers:
    return Numbers(
        title="Equal scores of neighbours in the rankings, and the MRR whatever their order",
        columns=[
            Column("pool", "pool"),
            Column("stage", "stage"),
            Column("neighbours", "neighbours", "count"),
            Column("tied", "tied", "count"),
            Column("copies", "copies of one picture", "count"),
            Column("queries", "queries", "count"),
            Column("with_target", "with a target", "count"),
            Column("mrr_least", "MRR, least", "number"),
            Column("mrr", "MRR", "number"),
            Column("mrr_most", "MRR, most", "number"),
        ],
        rows=[{**row, "stage": STAGES[row["stage"]]} for row in rows],
        sql=sql,
    )


def _coarse_table(run: Mapping[str, Any], rows: Sequence[Row]) -> Numbers:
    return Numbers(
        title="Ties, had the same scores been kept in bf16",
        columns=[
            Column("stage", "stage"),
            Column("neighbours", "neighbours", "count"),
            Column("tied", "tied", "count"),
        ],
        rows=[{**row, "stage": STAGES[row["stage"]]} for row in rows],
        sql=_coarse_sql(run),
    )


def _coarse_sql(run: Mapping[str, Any]) -> str:
    step = f"pow(2, floor(log2(abs(score))) - {BF16_BITS})"
    return f"""\
WITH scored AS (
  SELECT 'stage1' AS stage, query_id, pool, stage1_score::DOUBLE AS score FROM candidates
  WHERE {of_run(run)}
  UNION ALL
  SELECT 'stage2', query_id, pool, stage2_score::DOUBLE FROM rankings WHERE {of_run(run)}
),
rounded AS (
  SELECT stage, query_id, pool,
         CASE WHEN score = 0 THEN 0 ELSE round_even(score / {step}, 0) * {step} END AS score
  FROM scored
)
SELECT stage, count(*) - count(DISTINCT (query_id, pool)) AS neighbours,
       count(*) - count(DISTINCT (query_id, pool, score)) AS tied
FROM rounded GROUP BY stage ORDER BY stage"""
