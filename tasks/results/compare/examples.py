"""The queries that two runs answer most differently."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.results.compare.answers import Answers
from tasks.stages.target_ranks import NEVER

SHOWN = 6
"""Images of each order."""

OF_A_PAIR, OF_MANY = 8, 3
"""Queries each way: of two runs alone, and of each pair where there are more."""


Queries = Mapping[str, Mapping[str, Any]]
"""As they were ingested, by id."""


@dataclass(frozen=True)
class Example:
    """A query, and the first images of two runs' orders; ranks are None where the target has
    none."""

    query_id: str
    text: str
    reference: str
    targets: Sequence[str]
    ranks: tuple[int | None, int | None]
    tops: tuple[Sequence[str], Sequence[str]]

    @property
    def images(self) -> Iterator[str]:
        """All that it shows."""
        yield from (self.reference, *self.targets, *self.tops[0], *self.tops[1])


def differ_most(
    first: Answers, second: Answers, queries: Queries, each_way: int
) -> tuple[list[Example], list[Example]]:
    """The queries that the first answers better, and those that the second does: the reciprocal
    ranks of whose targets lie farthest apart, of equal ones the first by id."""
    gained = 1 / first.ranks.astype(float) - 1 / second.ranks.astype(float)
    better = np.lexsort((np.arange(len(gained)), -gained))
    worse = np.lexsort((np.arange(len(gained)), gained))
    chosen = (
        [place for place in better[:each_way] if gained[place] > 0],
        [place for place in worse[:each_way] if gained[place] < 0],
    )
    tops = [
        _tops(each, [first.queries[p] for way in chosen for p in way]) for each in (first, second)
    ]
    wins, losses = (
        [_example(first.queries[place], place, first, second, tops, queries) for place in way]
        for way in chosen
    )
    return wins, losses


def _example(
    query: str,
    place: int,
    first: Answers,
    second: Answers,
    tops: Sequence[Mapping[str, Sequence[str]]],
    queries: Queries,
) -> Example:
    row, (one, other) = queries[query], tops
    return Example(
        query_id=query,
        text=row["text"],
        reference=row["reference_id"],
        targets=row["targets"],
        ranks=(_rank(first.ranks[place]), _rank(second.ranks[place])),
        tops=(one.get(query, ()), other.get(query, ())),
    )


def _rank(rank: int) -> int | None:
    return None if rank == NEVER else int(rank)


def _tops(answers: Answers, queries: Sequence[str]) -> dict[str, list[str]]:
    order = answers.order
    wanted = pc.is_in(order["query_id"], value_set=pa.array(queries, pa.string()))
    mine = order.filter(pc.and_(wanted, pc.less_equal(order["rank"], SHOWN))).sort_by("rank")
    tops: dict[str, list[str]] = {}
    for query, image in zip(
        mine["query_id"].to_pylist(), mine["image_id"].to_pylist(), strict=True
    ):
        tops.setdefault(query, []).append(image)
    return tops
