"""Queries to look at: which they are, by SQL, and their pictures."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.album import Album

SHOWN = 7
"""Candidates per stage and sample query."""

SAMPLES = {
    "Re-ranking gained most": "places_gained > 0 ORDER BY places_gained DESC",
    "Re-ranking lost most": "places_gained < 0 ORDER BY places_gained",
    "Lost in stage 1": "NOT is_candidate ORDER BY stage1_rank DESC NULLS LAST",
    "Right in both stages": "stage1_rank = 1 AND stage2_rank = 1 ORDER BY length(text) DESC",
}
STAGE1_SAMPLES = {
    "Lost in stage 1": SAMPLES["Lost in stage 1"],
    "Ordered wrong": "is_candidate AND stage1_rank > 1 ORDER BY stage1_rank DESC",
    "Right": "stage1_rank = 1 ORDER BY length(text) DESC",
}
"""Of a run that re-ranked nothing."""
SAMPLES_EACH = 4

UNLABELLED = "Queries without label"
UNLABELLED_SHOWN = 12


@dataclass(frozen=True)
class _Picture:
    image_id: str
    source: str
    is_target: bool
    score: str


def samples(
    catalog: OpenCatalog, run_id: str, album: Album, *, reranked: bool = True
) -> list[dict[str, Any]]:
    """Groups of a run's queries, each with its title, its statement and what that chose."""
    groups = []
    for title, sql in _sample_sql(run_id, SAMPLES if reranked else STAGE1_SAMPLES).items():
        queries = catalog.rows(sql)
        for row in queries:
            row["targets"] = row["targets"] or []
            row["reference"] = _picture(album, row["reference_id"])
            row["target_pictures"] = [_picture(album, image) for image in row["targets"][:2]]
            for stage, *columns in (
                ("stage1", "candidates", "stage1_rank", "stage1_score"),
                ("stage2", "rankings", "rank", "stage2_score"),
            ):
                top = catalog.rows(_top_sql(run_id, row["query_id"], *columns))
                row[stage] = [
                    _picture(album, one["image_id"], row["targets"], f"{one['score']:.3f}")
                    for one in top
                ]
        if queries:
            groups.append({"title": title, "sql": sql, "queries": queries})
    return groups


def _top_sql(run_id: str, query_id: str, table: str, rank: str, score: str) -> str:
    """A query's first candidates by a stage's rank."""
    quoted = query_id.replace("'", "''")
    return (
        f"SELECT image_id, {score} AS score FROM {table} WHERE run_id = '{run_id}' "
        f"AND query_id = '{quoted}' AND pool = 'gallery' ORDER BY {rank} LIMIT {SHOWN}"
    )


def _picture(
    album: Album, image_id: str, targets: Collection[str] = (), score: str = ""
) -> _Picture:
    return _Picture(image_id, album.thumbnail(image_id), image_id in targets, score)


def _sample_sql(run_id: str, conditions: Mapping[str, str]) -> dict[str, str]:
    """The statement that chooses each group's queries."""
    statements = {}
    for title, condition in conditions.items():
        where, _, order = condition.partition(" ORDER BY ")
        statements[title] = (
            "SELECT query_id, category, reference_id, text, targets, stage1_rank, stage2_rank\n"
            f"FROM rank_movement WHERE run_id = '{run_id}' AND pool = 'gallery' AND {where}\n"
            f"ORDER BY {order}, query_id LIMIT {SAMPLES_EACH}"
        )
    statements[UNLABELLED] = (
        "SELECT query_id, category, reference_id, text, targets\n"
        f"FROM queries WHERE run_id = '{run_id}' AND targets IS NULL\n"
        f"ORDER BY query_id LIMIT {UNLABELLED_SHOWN}"
    )
    return statements
