"""One query's story: what was asked, what each stage answered, and where the targets stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cir_core.datasets.near_names import ImageNames
from cir_core.errors import UsageError
from cir_core.types import ImageId
from storage.answers import OpenCatalog
from storage.quoting import literal

Row = Mapping[str, Any]

SHOWN = 10
"""Candidates of each stage."""


@dataclass(frozen=True)
class PoolStory:
    """In one pool. ``placed`` is the query's row of ``rank_movement``, None without label;
    ``failed`` its row of ``failures``, None where a target is first. Of the candidates, in each
    stage's order, those that are ``SHOWN``, and the targets beyond; none of stage 2 where nothing
    was re-ranked. Margins are the best target's score minus that of the best other candidate: None
    where either lacks."""

    pool: str
    candidates: int
    placed: Row | None
    failed: Row | None
    before: Sequence[Row]
    after: Sequence[Row]
    margin1: float | None
    margin2: float | None


@dataclass(frozen=True)
class Story:
    """``run`` and ``query`` are rows of the catalog's tables; ``problems`` tell why a query has no
    candidates, if so."""

    run: Row
    query: Row
    problems: Sequence[Row]
    pools: Sequence[PoolStory]


def story(catalog: OpenCatalog, run_id: str, name: str, shown: int = SHOWN) -> Story:
    """Of the query that is called so, in whichever Unicode form. Raises UsageError, with names like
    it, when the run asks no such query; PreflightError when the catalog lacks the run."""
    of_run = f"run_id = {literal(run_id)}"
    run = catalog.run(run_id)
    query_id = _meant(catalog, of_run, name)
    of_query = f"{of_run} AND query_id = {literal(query_id)}"
    (query,) = catalog.rows(f"SELECT * FROM queries WHERE {of_query}")
    problems = _problems(catalog, of_run, query)
    names = catalog.rows(f"SELECT DISTINCT pool FROM candidates WHERE {of_query} ORDER BY pool")
    pools = [_pool(catalog, of_query, query, row["pool"], shown) for row in names]
    return Story(run, query, problems, pools)


def _problems(catalog: OpenCatalog, of_run: str, query: Row) -> Sequence[Row]:
    """The query's own, then its reference's, which may be called as some query is."""
    is_query = "kind IN (SELECT kind FROM query_problems)"
    of_query, of_image = (literal(query[name]) for name in ("query_id", "reference_id"))
    return catalog.rows(
        f"SELECT * FROM problems WHERE {of_run}\n"
        f"AND item = if({is_query}, {of_query}, {of_image}) ORDER BY {is_query} DESC, kind"
    )


def _meant(catalog: OpenCatalog, of_run: str, name: str) -> str:
    sql = f"SELECT query_id FROM queries WHERE {of_run} ORDER BY query_id"
    known = ImageNames(ImageId(row["query_id"]) for row in catalog.rows(sql))
    meant = known.meant(name)
    if meant in known.images:
        return meant
    like = get_close_matches(name, known.images, n=5) or list(known.images)[:5]
    raise UsageError(
        f"the run asks no query {name!r}",
        item="\n".join(like),
        cause=known.fault(name).replace("the image", "the query"),
        remedy="name one as the dataset does; these are like it, or the first",
    )


def _pool(catalog: OpenCatalog, of_query: str, query: Row, pool: str, shown: int) -> PoolStory:
    where = f"{of_query} AND pool = {literal(pool)}"
    before = catalog.rows(
        "SELECT image_id, stage1_rank, stage1_score, rank, stage2_score\n"
        "FROM candidates LEFT JOIN (SELECT * EXCLUDE (stage1_rank, stage1_score) FROM rankings)\n"
        f"USING (run_id, query_id, pool, image_id) WHERE {where} ORDER BY stage1_rank"
    )
    targets, reference = query["recall_targets"] or [], query["reference_id"]
    rows = [
        {
            **row,
            "moved": None if row["rank"] is None else row["stage1_rank"] - row["rank"],
            "is_target": row["image_id"] in targets,
            "is_reference": row["image_id"] == reference,
        }
        for row in before
    ]
    after = sorted(
        (row for row in rows if row["rank"] is not None), key=lambda row: int(row["rank"])
    )
    placed = catalog.rows(f"SELECT * FROM rank_movement WHERE {where}")
    failed = catalog.rows(f"SELECT * FROM failures WHERE {where}")
    return PoolStory(
        pool=pool,
        candidates=len(rows),
        placed=placed[0] if placed else None,
        failed=failed[0] if failed else None,
        before=_shown(rows, "stage1_rank", shown),
        after=_shown(after, "rank", shown),
        margin1=_margin(rows, "stage1_score"),
        margin2=_margin(after, "stage2_score"),
    )


def _shown(rows: Sequence[Row], rank: str, shown: int) -> list[Row]:
    return [row for row in rows if row[rank] <= shown or row["is_target"]]


def _margin(rows: Sequence[Row], score: str) -> float | None:
    scores = [
        [row[score] for row in rows if row["is_target"] == is_target] for is_target in (True, False)
    ]
    return float(max(scores[0]) - max(scores[1])) if all(scores) else None
