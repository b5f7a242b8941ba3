"""What the page's browser knows of each query, and of how many queries a page can know it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.quoting import literal
from tasks.results.analyses.failure_split import CANNOT
from tasks.results.report.source import Source

TOP = 10
"""Candidates of each stage."""

MENTIONED = 2 * TOP + 2
"""Images of a query at most, but for further targets and a subset."""

QUERY_BYTES = 450
"""Of a query's JSON, measured: 445 of 6,016 with short ids and texts."""

MOST_BYTES = 12_000_000
"""Of the queries' JSON: some 27,000 queries. A page of 16 MB opens in a second and a half."""


@dataclass(frozen=True)
class QueryRows:
    """Those that the page has, in the dataset's order, of ``count``; ``left_out_sql`` lists the
    others, and is empty where there are none."""

    rows: Sequence[dict[str, Any]]
    count: int
    left_out_sql: str


def query_rows(source: Source, first: Sequence[str], *, most: int) -> QueryRows:
    """As many queries of the run as fit into so many bytes of JSON: ``first`` in any case, then the
    others by the md5 of their ids, as good as drawn at random, so that shares stay what they are.
    """
    (count,) = (row["n"] for row in source.rows(f"SELECT count(*) AS n FROM queries{_of(source)}"))
    rows: list[dict[str, Any]] = []
    taken = 0
    order = f"query_id NOT IN ({', '.join(map(literal, first)) or 'NULL'}), md5(query_id), query_id"
    with source.catalog.ask(_sql(source, order)) as answer:
        for values in answer.rows:
            row = dict(zip(answer.columns, values, strict=True))
            taken += len(json.dumps(list(row.values()), ensure_ascii=False).encode())
            if taken > most and len(rows) >= len(first):
                break
            rows.append(row)
    left_out = (
        f"SELECT query_id, category, reference_id, text, targets FROM queries{_of(source)}\n"
        f"ORDER BY {order} OFFSET {len(rows)}"
    )
    rows.sort(key=lambda row: row["place"])
    return QueryRows(rows, count, left_out if len(rows) < count else "")


def _of(source: Source) -> str:
    return f" WHERE {source.of_run}"


def _sql(source: Source, order: str) -> str:
    """A row per query. A stage's first candidates are lists: images, their scores, and the places
    that the other stage gives them; so are a query's targets."""
    of = source.of_run
    return f"""
WITH mine AS MATERIALIZED (SELECT * EXCLUDE run_id, rowid AS place FROM queries WHERE {of}),
placed AS MATERIALIZED ({_placed(source)}),
firsts AS (
    SELECT query_id, {_first("stage1", "stage1_rank", "stage2_rank")},
           {_first("stage2", "stage2_rank", "stage1_rank")}
    FROM placed WHERE pool = 'gallery' AND least(stage1_rank, stage2_rank) <= {TOP} GROUP BY ALL
),
members AS (
    SELECT query_id, list(image_id ORDER BY stage1_rank) AS subset_stage1,
           list(image_id ORDER BY stage2_rank) FILTER (stage2_rank IS NOT NULL) AS subset_stage2
    FROM placed WHERE pool = 'subset' GROUP BY ALL
),
answers AS (
    SELECT query_id, list(t.stage1_rank ORDER BY number) AS targets_stage1,
           list(p.stage2_rank ORDER BY number) AS targets_stage2
    FROM (SELECT query_id, unnest(targets) AS image_id, generate_subscripts(targets, 1) AS number
          FROM mine)
    LEFT JOIN (SELECT * FROM target_ranks WHERE {of}) t USING (query_id, image_id)
    LEFT JOIN (SELECT * FROM placed WHERE pool = 'gallery') p USING (query_id, image_id)
    GROUP BY ALL
)
SELECT place, query_id, category, reference_id, text, targets, targets_stage1, targets_stage2,
       m.stage1_rank, m.stage2_rank, m.is_candidate, unanswered.cannot, m.places_gained,
       t.words, t.has_negation,
       halves.image_rank, halves.text_rank,
       firsts.* EXCLUDE query_id, members.* EXCLUDE query_id
FROM mine
LEFT JOIN (SELECT query_id, stage1_rank, stage2_rank, is_candidate, places_gained
           FROM rank_movement WHERE {of} AND pool = 'gallery') m USING (query_id)
LEFT JOIN (SELECT query_id, true AS cannot FROM failures
           WHERE {of} AND pool = 'gallery' AND reason = '{CANNOT}') unanswered USING (query_id)
LEFT JOIN (SELECT query_id, words, has_negation FROM query_traits WHERE {of}) t USING (query_id)
LEFT JOIN (SELECT query_id, image_rank, text_rank FROM probes WHERE {of}) halves USING (query_id)
LEFT JOIN answers USING (query_id)
LEFT JOIN firsts USING (query_id)
LEFT JOIN members USING (query_id)
ORDER BY {order}"""


def _placed(source: Source) -> str:
    """Every candidate; without ranks and scores of stage 2 where there was none."""
    if source.is_reranked:
        return (
            "SELECT query_id, pool, image_id, stage1_rank, stage1_score, rank AS stage2_rank, "
            f"stage2_score FROM rankings WHERE {source.of_run}"
        )
    return (
        "SELECT query_id, pool, image_id, stage1_rank, stage1_score, NULL::INTEGER AS stage2_rank, "
        f"NULL::FLOAT AS stage2_score FROM candidates WHERE {source.of_run}"
    )


def _first(stage: str, rank: str, other: str) -> str:
    chosen = f"ORDER BY {rank}) FILTER ({rank} <= {TOP})"
    return (
        f"list(image_id {chosen} AS {stage}_images, "
        f"list(round({stage}_score::DOUBLE, 4) {chosen} AS {stage}_scores, "
        f"list({other} {chosen} AS {stage}_others"
    )
