"""Why queries fail, by signs that each have a rule, and what helps against each."""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis, Column, Figure, Numbers, asked
from tasks.results.analyses.failure_split import LOST
from tasks.results.analyses.signs import NEAR, Counts, Found, found, signs_of
from tasks.results.wording import (
    UNLABELLED,
    counted,
    is_reranked,
    of_run,
    percent,
    sentences,
    without_target,
)
from tasks.stages.target_ranks import NEVER

QUESTION = "Why do queries fail, and what helps?"

WORTH_TELLING = 0.01
"""Of the labelled queries: a sign of fewer is in the table, and asks for nothing."""


def signatures(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """Signs overlap: a query may bear several."""
    (counts,) = catalog.rows(counts_sql(run))
    if not counts["labelled"]:
        return Analysis("signatures", QUESTION, missing=UNLABELLED)
    signs = found(run, counts)
    return Analysis(
        name="signatures",
        question=QUESTION,
        answer=_answer(counts, signs),
        advice=_advice(signs),
        figures=[_hubs_figure(catalog, run)],
        numbers=[_table(run, signs), _hub_skewness(catalog, run), _worst_hubs(catalog, run)],
    )


def _table(run: Mapping[str, Any], signs: Sequence[Found]) -> Numbers:
    return Numbers(
        title="Signatures of failure, the most frequent first (one query may bear several)",
        columns=[
            Column("signature", "signature"),
            Column("queries", "queries", "count"),
            Column("share", "share", "percent"),
            Column("rule", "rule"),
            Column("numbers", "numbers"),
        ],
        rows=[sign.row for sign in signs],
        sql=_table_sql(run),
    )


def _table_sql(run: Mapping[str, Any]) -> str:
    signs = signs_of(run)
    names, counts = [sign.name for sign in signs], ", ".join(sign.counts for sign in signs)
    return f"""\
SELECT signature, queries, queries / labelled AS share
FROM (
  SELECT unnest({names}) AS signature, unnest([{counts}]) AS queries, labelled FROM (
{counts_sql(run)}
))
ORDER BY queries DESC"""


def counts_sql(run: Mapping[str, Any]) -> str:
    """One row: how many labelled queries there are, how many failed, and how many bear each sign;
    and what is told beside."""
    last = "stage2_rank" if is_reranked(run) else "stage1_rank"
    return f"""\
WITH signs AS (
  SELECT m.stage1_rank, m.{last} AS rank, m.is_candidate,
         coalesce(f.reason = '{LOST}', false) AS is_lost,
         coalesce(f.answered = m.reference_id, false) AS reference_first,
         coalesce(o.is_hub, false) AS is_hub, a.spearman
  FROM rank_movement m
  JOIN galleries g USING (run_id, category)
  LEFT JOIN failures f USING (run_id, query_id, pool)
  LEFT JOIN occurrences o
    ON o.run_id = m.run_id AND o.gallery = g.gallery AND o.image_id = f.answered
  LEFT JOIN stage_agreement a ON a.run_id = m.run_id AND a.query_id = m.query_id
  WHERE {of_run(run, "m.")} AND m.pool = 'gallery'
)
SELECT count(*) AS labelled,
       count(*) FILTER (coalesce(rank, 2) > 1) AS failed,
       count(*) FILTER (is_lost) AS lost,
       nullif(
         quantile_disc(coalesce(stage1_rank, {NEVER}), 0.5) FILTER (is_lost), {NEVER}
       ) AS lost_rank,
       count(*) FILTER (is_lost AND stage1_rank <= {2 * run["k"]}) AS lost_by_little,
       count(*) FILTER (is_candidate AND rank > 1) AS misplaced,
       count(*) FILTER (is_candidate AND rank BETWEEN 2 AND {NEAR}) AS nearly_first,
       count(*) FILTER (is_candidate AND rank > 1 AND rank > stage1_rank) AS moved_down,
       count(*) FILTER (stage1_rank = 1 AND rank > 1) AS unseated,
       count(*) FILTER (stage1_rank > 1 AND rank = 1) AS found,
       quantile_cont(spearman, 0.5) AS agreement,
       count(*) FILTER (reference_first) AS reference_first,
       count(*) FILTER (reference_first AND rank = 2) AS behind_reference,
       count(*) FILTER (is_hub AND NOT reference_first) AS behind_hub,
       (SELECT count(*) FROM occurrences WHERE {of_run(run)} AND is_hub) AS hubs,
       (SELECT max(first_10) FROM occurrences WHERE {of_run(run)} AND is_hub) AS hub_most
FROM signs"""


# --- hubs


def _hub_skewness(catalog: OpenCatalog, run: Mapping[str, Any]) -> Numbers:
    sql = (
        "SELECT gallery, count(*) AS images, avg(first_10) AS mean,\n"
        "       CASE WHEN count(*) > 2 AND min(stage1_first_10) < max(stage1_first_10)\n"
        "            THEN skewness(stage1_first_10) END AS skewness_before,\n"
        "       CASE WHEN count(*) > 2 AND min(first_10) < max(first_10)\n"
        "            THEN skewness(first_10) END AS skewness_after,\n"
        "       max(first_10) AS most, count(*) FILTER (is_hub) AS hubs\n"
        f"FROM occurrences WHERE {of_run(run)} GROUP BY gallery ORDER BY gallery"
    )
    return Numbers(
        title="How often an image is among the first 10 of a query (k-occurrence; a skewness above "
        "1 tells of hubs)",
        columns=[
            Column("gallery", "gallery"),
            Column("images", "images", "count"),
            Column("mean", "mean", "number"),
            Column("skewness_before", "skewness, stage 1", "number"),
            Column("skewness_after", "skewness, in the end", "number"),
            Column("most", "most", "count"),
            Column("hubs", "hubs", "count"),
        ],
        **asked(catalog, sql),
    )


def _worst_hubs(catalog: OpenCatalog, run: Mapping[str, Any]) -> Numbers:
    sql = (
        "SELECT gallery, image_id, first_10, first, wrong_first FROM occurrences\n"
        f"WHERE {of_run(run)} AND is_hub\n"
        "ORDER BY wrong_first DESC, first_10 DESC, gallery, image_id LIMIT 10"
    )
    return Numbers(
        title="The hubs that are most often a wrong first answer",
        columns=[
            Column("gallery", "gallery"),
            Column("image_id", "image", "image"),
            Column("first_10", "among the first 10", "count"),
            Column("first", "first", "count"),
            Column("wrong_first", "first, and wrong", "count"),
        ],
        **asked(catalog, sql),
    )


def _hubs_figure(catalog: OpenCatalog, run: Mapping[str, Any]) -> Figure:
    sql = (
        "SELECT first_10 AS x, first_10 + 1 AS x2, count(*) AS y FROM occurrences\n"
        f"WHERE {of_run(run)} GROUP BY first_10 ORDER BY x"
    )
    return Figure(
        kind="histogram",
        x="queries that have the image among their first 10",
        y="images",
        described="Histogram of the gallery's images by how many queries have them among their "
        "first 10; hubs are its long tail.",
        **asked(catalog, sql),
    )


# --- in words


def _answer(counts: Counts, signs: Sequence[Found]) -> str:
    failed, labelled = counts["failed"], counts["labelled"]
    if not failed:
        return f"None fails: of {counted(labelled, 'query', 'queries')}, each has its target first."
    told = [f"{sign.name} {percent(sign.share)}" for sign in signs if sign.queries]
    unanswered = failed - counts["lost"] - counts["misplaced"]
    return sentences(
        f"{without_target(failed, labelled)}.",
        f"By signature, of all: {', '.join(told)}." if told else "",
        f"{unanswered:,} cannot be answered: see the problems." if unanswered else "",
    )


def _advice(signs: Sequence[Found]) -> str:
    told = [
        f"{sign.name.capitalize()}: {sign.told.advice}"
        for sign in signs
        if sign.share >= WORTH_TELLING
    ]
    return "\n".join(told) or "No sign is borne by one query in a hundred."
