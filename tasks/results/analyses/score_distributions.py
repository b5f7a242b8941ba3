"""How both stages' scores are distributed, of targets and of each kind of negatives."""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Column, Figure, Numbers, asked
from tasks.results.titles import STAGES
from tasks.results.wording import of_run, percent

BINS = 40
"""Over the scores of targets and kept candidates; dropped images beyond are in the first and the
last. The overlap of two distributions is counted in them."""

KINDS = {"kept": "kept candidates", "dropped": "dropped images"}


def _bins_sql(run: Mapping[str, Any], stage: str) -> str:
    """Of each kind of scored image, how much of it is in each bin."""
    return f"""\
WITH scored AS (
  SELECT kind, {stage}_score::DOUBLE AS score FROM pair_kinds
  WHERE {of_run(run)} AND {stage}_score IS NOT NULL
),
edges AS (
  SELECT min(score) AS low,
         CASE WHEN min(score) < max(score)
              THEN (max(score) - min(score)) / {BINS} ELSE 1 END AS step
  FROM scored WHERE kind <> 'dropped'
),
counted AS (
  SELECT kind, greatest(0, least({BINS - 1}, floor((score - low) / step)))::INTEGER AS bin,
         min(low) AS low, min(step) AS step, count(*) AS n
  FROM scored, edges GROUP BY ALL
),
shares AS (
  SELECT kind, bin, low, step, n / sum(n) OVER (PARTITION BY kind) AS share FROM counted
)
"""


def _overlap_sql(run: Mapping[str, Any], stage: str) -> str:
    return (
        f"{_bins_sql(run, stage)}SELECT '{STAGES[stage]}' AS stage, n.kind AS negatives,\n"
        "       sum(least(t.share, n.share)) AS overlap\n"
        "FROM shares t JOIN shares n USING (bin)\n"
        "WHERE t.kind = 'target' AND n.kind <> 'target' GROUP BY n.kind ORDER BY negatives DESC"
    )


def told_of_overlap(overlaps: Numbers) -> str:
    kept = [row for row in overlaps.rows if row["negatives"] == KINDS["kept"]]
    told = [f"{percent(row['overlap'])} ({row['stage']})" for row in kept]
    if not told:
        return "Over all queries, no scores of targets and of kept candidates overlap."
    return (
        "Over all queries, the scores of targets and of kept candidates overlap by "
        + " and ".join(told)
        + "."
    )


def overlap_numbers(catalog: OpenCatalog, run: Mapping[str, Any], stages: Sequence[str]) -> Numbers:
    """Kinds that share no bin with targets are not in it."""
    sql = "\nUNION ALL\n".join(f"({_overlap_sql(run, stage)})" for stage in stages)
    rows = [{**row, "negatives": KINDS[row["negatives"]]} for row in catalog.rows(sql)]
    return Numbers(
        title=f"Overlap of the scores of targets and negatives ({BINS} common bins; 0: apart, 1: "
        "alike)",
        columns=[
            Column("stage", "scores"),
            Column("negatives", "negatives"),
            Column("overlap", "overlap", "percent"),
        ],
        rows=rows,
        sql=sql,
    )


def histogram(catalog: OpenCatalog, run: Mapping[str, Any], stage: str) -> Figure:
    sql = (
        f"{_bins_sql(run, stage)}"
        "SELECT kind AS series, low + step * bin AS x, low + step * (bin + 1) AS x2, share AS y\n"
        "FROM shares ORDER BY series DESC, x"
    )
    return Figure(
        kind="histogram",
        x=f"{STAGES[stage]}'s score",
        y="share of its kind",
        described=f"Histograms of {STAGES[stage]}'s scores: of targets, of kept candidates (hard "
        "negatives), and of dropped images where some are scored.",
        is_percent=True,
        **asked(catalog, sql),
    )
