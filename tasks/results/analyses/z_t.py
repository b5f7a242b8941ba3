"""What does z_t keep? Whether a query's reference is found again, and what stage 2 makes of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from cir_core.metrics.significance import Interval, wins_interval
from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis, Column, Figure, Numbers, Row, asked
from tasks.results.wording import (
    NOT_ANALYSED,
    counted,
    of_run,
    percent,
    points,
    sentences,
)

QUESTION = "What does z_t keep of the reference?"

PROBES = {
    "the query embedding": "reference_rank",
    "the query embedding, mapped": "reference_rank_mapped",
    "z_t, mapped": "reference_rank_z_t",
}
"""Of each the column that has the reference's rank."""

NEARLY_ALL, MUCH = 0.9, 0.5
"""Shares of references that are found first, from which they are told so."""

UP_TO = 1, 2, 5, 10, 20, 50, 100

ABLATE = (
    "No run of this catalog has the same stage 1 and a stage 2 that reads the reference otherwise: "
    "`cir-pipeline ablate` trains and runs such variants (docs/ablations.md)."
)


def z_t(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """Over all queries that were asked, with labels or without."""
    rows = {row["probe"]: row for row in catalog.rows(_sql(run))}
    variants = _variants(catalog, run)
    if not rows and len(variants) < 2:  # noqa: PLR2004 - this run, and another
        return Analysis("z_t", QUESTION, missing=NOT_ANALYSED)
    found = [rows[name] for name in PROBES if name in rows]
    of_z_t, of_embedding = rows.get("z_t, mapped"), rows.get("the query embedding, mapped")
    gain = _gain(catalog, run) if of_z_t and of_embedding else None
    return Analysis(
        name="z_t",
        question=QUESTION,
        answer=sentences(
            _told(found),
            _told_of_z_t(of_z_t, gain) if found else NOT_ANALYSED,
            _told_of_variants(variants),
        ),
        advice=_advice(of_z_t, gain),
        figures=[_figure(catalog, run)] if found else [],
        numbers=[
            *([_numbers(run, found)] if found else []),
            *([_variants_numbers(run, variants)] if len(variants) > 1 else []),
        ],
    )


# --- the reference, found again


def _ranks_sql(run: Mapping[str, Any]) -> str:
    """A row for each query and probe."""
    names, columns = list(PROBES), ", ".join(PROBES.values())
    return (
        f"SELECT run_id, query_id, unnest({names}) AS probe, unnest([{columns}]) AS rank\n"
        f"FROM probes WHERE {of_run(run)}"
    )


def _sql(run: Mapping[str, Any]) -> str:
    return f"""\
SELECT probe, count(*) AS n, avg((rank <= 1)::INTEGER) AS first,
       avg((rank <= 10)::INTEGER) AS first_10, quantile_disc(rank, 0.5) AS median,
       avg(least(1, 1 / g.images)) AS chance
FROM (
{_ranks_sql(run)}
) r
JOIN queries q USING (run_id, query_id)
JOIN galleries g USING (run_id, category)
WHERE rank IS NOT NULL
GROUP BY probe ORDER BY probe"""


def _numbers(run: Mapping[str, Any], rows: Sequence[Row]) -> Numbers:
    return Numbers(
        title="How often a query's own reference is found again in its gallery (mapped: by a "
        "linear map, fitted on the queries of other references)",
        columns=[
            Column("probe", "read from"),
            Column("n", "queries", "count"),
            Column("first", "first", "percent"),
            Column("first_10", "among 10", "percent"),
            Column("median", "median rank", "count"),
            Column("chance", "first by chance", "percent"),
        ],
        rows=rows,
        sql=_sql(run),
    )


def _figure(catalog: OpenCatalog, run: Mapping[str, Any]) -> Figure:
    sql = f"""\
SELECT probe AS series, x, avg((rank <= x)::INTEGER) AS y
FROM (SELECT *, unnest({list(UP_TO)}) AS x FROM (
{_ranks_sql(run)}
) WHERE rank IS NOT NULL)
GROUP BY ALL ORDER BY series, x"""
    return Figure(
        kind="line",
        x="first images",
        y="queries whose reference is among them",
        described="How often a query's reference is among the first images, when it is looked for "
        "by the query's embedding, and by what a linear map reads from that and from z_t.",
        is_percent=True,
        **asked(catalog, sql),
    )


def _gain(catalog: OpenCatalog, run: Mapping[str, Any]) -> Interval:
    """How many more references are found first from z_t than from the embedding, both mapped."""
    (row,) = catalog.rows(
        "SELECT count(*) AS n,\n"
        "  count(*) FILTER (reference_rank_z_t = 1 AND reference_rank_mapped > 1) AS more,\n"
        "  count(*) FILTER (reference_rank_z_t > 1 AND reference_rank_mapped = 1) AS less\n"
        f"FROM probes WHERE {of_run(run)} AND reference_rank_z_t IS NOT NULL"
    )
    return wins_interval(row["more"], row["less"], row["n"])


def _told(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    told = [f"{percent(row['first'])} from {row['probe']}" for row in rows]
    queries = counted(rows[0]["n"], "query", "queries")
    mapped = "Mapped: by a linear map that was fitted on the queries of other references."
    return sentences(
        f"A query's reference is found again as the first of its gallery, of {queries}: "
        f"{'; '.join(told)} (by chance {percent(rows[0]['chance'])}).",
        mapped if len(rows) > 1 else "",
    )


def _told_of_z_t(row: Row | None, gain: Interval | None) -> str:
    if row is None:
        return (
            "z_t was not probed: this stage 1 has none, or there are too few references to fit a "
            "map on."
        )
    kept = "little"
    if row["first"] >= MUCH:
        kept = "nearly all" if row["first"] >= NEARLY_ALL else "much"
    told = f"So z_t keeps {kept} of what tells the reference from other images"
    if gain is None:
        return f"{told}."
    if gain.low > 0:
        return f"{told}, and more than the embedding does: {points(gain)}."
    if gain.high < 0:
        return f"{told}, and less than the embedding does: {points(gain)}."
    return f"{told}; these queries do not tell it from the embedding: {points(gain)}."


# --- stage 2, with z_t and without


def _variants(catalog: OpenCatalog, run: Mapping[str, Any]) -> list[Row]:
    """This run, and those that differ in stage 2 alone, one of them at least in whether it reads
    z_t; none elsewhere."""
    rows = catalog.rows(_variants_sql(run))
    return [_compared(row) for row in rows] if len({row["reads_z_t"] for row in rows}) > 1 else []


def _variants_sql(run: Mapping[str, Any]) -> str:
    return f"""\
WITH mine AS (
  SELECT * FROM runs WHERE {of_run(run)} AND stage2_sha256 IS NOT NULL AND late_fusion IS NULL
),
alike AS (
  SELECT o.run_id, o.name, o.reads_z_t FROM runs o JOIN mine m
    ON (o.stage1_sha256, o.gallery_sha256, o.protocol, o.split, o.k, o.precision)
     = (m.stage1_sha256, m.gallery_sha256, m.protocol, m.split, m.k, m.precision)
    AND (o.encoder_precision, o.stage1_precision) = (m.encoder_precision, m.stage1_precision)
    AND o.first_stage_sha256 IS NOT DISTINCT FROM m.first_stage_sha256
    AND o.text_weight IS NOT DISTINCT FROM m.text_weight
    AND o.vector_index IS NOT DISTINCT FROM m.vector_index
    AND o.coverage_asked IS NOT DISTINCT FROM m.coverage_asked
  WHERE o.stage2_sha256 IS NOT NULL AND o.late_fusion IS NULL
),
hits AS (
  SELECT a.run_id, a.name, a.reads_z_t, (coalesce(r.stage2_rank, 2) <= 1)::INTEGER AS hit,
         (coalesce(b.stage2_rank, 2) <= 1)::INTEGER AS base
  FROM alike a
  JOIN rank_movement r ON r.run_id = a.run_id AND r.pool = 'gallery'
  JOIN rank_movement b ON b.query_id = r.query_id AND b.pool = 'gallery' AND {of_run(run, "b.")}
)
SELECT run_id, coalesce(name, run_id) AS run, reads_z_t,
       CASE WHEN reads_z_t THEN 'z_t' ELSE 'texts and images' END AS reads,
       count(*) AS n, avg(hit) AS recall, avg(hit) - avg(base) AS gain,
       count(*) FILTER (hit > base) AS won, count(*) FILTER (hit < base) AS lost
FROM hits GROUP BY ALL ORDER BY recall DESC, run_id"""


def _compared(row: Row) -> Row:
    gain = wins_interval(row["won"], row["lost"], row["n"])
    return {**row, "interval": (gain.low, gain.high)}


def _variants_numbers(run: Mapping[str, Any], rows: Sequence[Row]) -> Numbers:
    return Numbers(
        title=f"Stage 2 by what it reads of the reference: runs that differ in stage 2 alone, "
        f"R@1, protocol {run['protocol']}, and the difference to this run",
        columns=[
            Column("run", "run"),
            Column("reads", "stage 2 reads"),
            Column("n", "queries", "count"),
            Column("recall", "R@1", "percent"),
            Column("gain", "to this run", "gain"),
            Column("interval", "95 %", "interval"),
        ],
        rows=rows,
        sql=_variants_sql(run),
    )


def _told_of_variants(rows: Sequence[Row]) -> str:
    if not rows:
        return ABLATE
    with_z_t = max((row for row in rows if row["reads_z_t"]), key=lambda row: row["recall"])
    without = max((row for row in rows if not row["reads_z_t"]), key=lambda row: row["recall"])
    return (
        f"Of {len(rows)} runs that differ in stage 2 alone, the best that reads z_t has R@1 "
        f"{percent(with_z_t['recall'])} ({with_z_t['run']}), the best that does not "
        f"{percent(without['recall'])} ({without['run']})."
    )


# --- what to do


def _advice(row: Row | None, gain: Interval | None) -> str:
    if row is None:
        return ""
    if row["first"] >= MUCH:
        return (
            "Stage 2 can know the reference from z_t, as the paper means it to; looking at the "
            'reference\'s own image tokens again (variant `reference = "image"`) promises little.'
        )
    return (
        "z_t has lost much of the reference: a stage 2 that looks at the reference's own image "
        'tokens (variant `reference = "image"`) may know what this one cannot; train one '
        "(docs/ablations.md)."
    )
