"""Groups of queries worth a look: which they are, by SQL and by the state of the page's browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.wording import is_reranked, of_run

EACH = 4
"""Queries of a group that are samples."""
UNLABELLED_EACH = 12


@dataclass(frozen=True)
class Group:
    """``where`` and ``order`` are SQL over ``view``: of those without label, ``queries``. ``state``
    shows the same queries, in the same order, in the page's browser."""

    title: str
    where: str
    order: str
    state: str
    view: str = "rank_movement"
    samples: int = EACH

    def sql(self, run: Mapping[str, Any]) -> str:
        """The statement that chooses the group's samples."""
        pool = "" if self.view == "queries" else " AND pool = 'gallery'"
        return (
            "SELECT query_id, category, reference_id, text, targets\n"
            f"FROM {self.view} WHERE {of_run(run)}{pool} AND {self.where}\n"
            f"ORDER BY {self.order}query_id LIMIT {self.samples}"
        )


LOST = Group(
    "Lost in stage 1",
    "reason = 'lost in stage 1'",
    "stage1_rank DESC NULLS LAST, ",
    "moved=lost&sort=stage1&descending=1",
    view="failures",
)
UNLABELLED = Group(
    "Queries without label",
    "targets IS NULL",
    "",
    "label=none&sort=id",
    view="queries",
    samples=UNLABELLED_EACH,
)
RERANKED = (
    Group(
        "Re-ranking gained most",
        "places_gained > 0",
        "places_gained DESC, ",
        "moved=up&sort=gained&descending=1",
    ),
    Group("Re-ranking lost most", "places_gained < 0", "places_gained, ", "moved=down&sort=gained"),
    LOST,
    Group(
        "Right in both stages",
        "stage1_rank = 1 AND stage2_rank = 1",
        "length(text) DESC, ",
        "answer=both&sort=length&descending=1",
    ),
    UNLABELLED,
)
STAGE1 = (
    LOST,
    Group(
        "Ordered wrong",
        "is_candidate AND stage1_rank > 1",
        "stage1_rank DESC, ",
        "answer=wrong&moved=kept&sort=stage1&descending=1",
    ),
    Group(
        "Right", "stage1_rank = 1", "length(text) DESC, ", "answer=right&sort=length&descending=1"
    ),
    UNLABELLED,
)
"""Of a run that re-ranked nothing."""


@dataclass(frozen=True)
class Samples:
    """A group and those of its queries that are its samples."""

    group: Group
    sql: str
    query_ids: Sequence[str]


def samples(catalog: OpenCatalog, run: Mapping[str, Any]) -> list[Samples]:
    """Of a run's row of ``runs``: the groups that have any query."""
    found = []
    for group in RERANKED if is_reranked(run) else STAGE1:
        sql = group.sql(run)
        ids = [row["query_id"] for row in catalog.rows(sql)]
        if ids:
            found.append(Samples(group, sql, ids))
    return found
