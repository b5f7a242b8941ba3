"""Candidates that somebody else's first stage has chosen, from a file, in place of retrieval."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cir_core.errors import PreflightError
from cir_core.ordering import grouped_best_first
from cir_core.planning.effort import Effort
from cir_core.search.candidates import Candidates
from storage.tables import rows_of
from tasks.machine import Machine
from tasks.shards import part_name
from tasks.stages.choosing import Asked, Choosing
from tasks.stages.gallery import usable_images
from tasks.stages.handed_over import NOWHERE, HandedOver, Split, read_handed_over
from tasks.stages.stage import ReadyPart, Work


@dataclass(frozen=True)
class ReadCandidates(Choosing):
    """The ``k`` best of each query by the ``file``'s scores, ties by gallery position; ``digest``
    names what the file hands over (``HandedOver``).

    A target that the file lacks has no rank: nobody knows where its first stage has put it, and it
    is a miss at every k. Members of a query's subset are the protocol's; one that the file lacks
    stands below all that it has, at the last place, which several may share.
    Raises as ``read_handed_over``, and PreflightError when the file has changed meanwhile.
    """

    k: int
    file: Path
    digest: str

    version = 3
    seconds_per_pair = 3e-6
    """Of a TREC run with 2,000,000 rows, on one core 2.1e-6 to read it and 0.7e-6 for the tables;
    of JSON lines 1.7e-6, of Parquet 0.8e-6 to read."""

    def settings(self) -> Mapping[str, Any]:
        removes_reference = self.ingested.protocol.removes_reference
        return {"k": self.k, "removes_reference": removes_reference}

    def inputs(self) -> Mapping[str, str]:
        return {**super().inputs(), "candidates": self.digest}

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        found = self._found()
        fused = self.fused.read("queries", columns=["query_id"])["query_id"]
        images = usable_images(self.ingested, self.encoded)["image_id"]
        yield partial(self._choose_each, found, fused, images)

    def known(self) -> pa.Table:
        """The candidates as they will be if all images can be decoded, and all texts read."""
        found, queries = self._found(), self.ingested.read("queries")["query_id"]
        images = self.ingested.read("images")["image_id"]
        parts = self._choose_each(found, queries, images, self.shards())
        return pa.concat_tables(one.content for one in parts if one.part.startswith("candidates"))

    def _found(self) -> HandedOver:
        found = read_handed_over(self.file, Split(self.ingested))
        if found.digest != self.digest:
            raise PreflightError(
                "a file of candidates has changed since this run began",
                item=str(self.file),
                cause="its candidates are not those that the run's results are named after",
                remedy="run the same command again: what they change is made anew",
            )
        return found

    def _choose_each(
        self,
        found: HandedOver,
        queries: pa.ChunkedArray,
        images: pa.ChunkedArray,
        shards: Sequence[str],
    ) -> Iterator[ReadyPart]:
        """Of these queries and images, which are usable."""
        split = Split(self.ingested)
        asked = rows_of(split.queries["query_id"], queries) >= 0
        usable = rows_of(split.gallery["image_id"], images) >= 0
        for shard in shards:
            choice = _Choice.of(split, found, int(shard), asked, usable)
            for kind, table in zip(self.makes.holds, choice.tables(self.k), strict=True):
                pairs = table.num_rows if kind == "candidates" else 0
                yield ReadyPart(self.made, part_name(kind, shard), table, Effort(pairs=pairs))


@dataclass(frozen=True)
class _Choice(Asked):
    """Candidates of one gallery's queries, all of the file's that are usable, best first; and by
    query, below which score all that the file lacks stands."""

    found: Candidates
    below: np.ndarray

    @classmethod
    def of(
        cls, split: Split, found: HandedOver, gallery: int, asked: np.ndarray, usable: np.ndarray
    ) -> "_Choice":
        """``asked`` and ``usable`` are masks of the split's queries and gallery members."""
        members = np.flatnonzero(usable & (split.gallery_of_member == gallery))
        queries = np.flatnonzero(asked & (split.gallery_of_query == gallery))
        lowest = np.full(len(asked), np.finfo(np.float32).max, np.float32)
        np.minimum.at(lowest, found.queries, found.scores)
        mine = found.of(np.isin(found.queries, queries) & np.isin(found.members, members))
        order, ranks = grouped_best_first(mine.queries, mine.scores, mine.members)
        return cls(
            split.gallery["image_id"].take(pa.array(members)),
            split.queries.take(pa.array(queries)),
            Candidates(
                np.searchsorted(queries, mine.queries[order]),
                np.searchsorted(members, mine.members[order]),
                ranks,
                mine.scores[order],
            ),
            lowest[queries],
        )

    def tables(self, k: int) -> tuple[pa.Table, pa.Table]:
        """Candidates, and ranks of targets."""
        found = self.found
        best = found.ranks <= k
        gallery = Candidates(
            found.queries[best], found.images[best], found.ranks[best], found.scores[best]
        )
        queries, images = self.pairs("targets")
        place = self._places(queries, images)
        known = place != NOWHERE
        ranks = found.ranks[place[known]]
        targets = self.targets(queries[known], images[known], ranks)
        return self.candidates(gallery, self._subset()), targets

    def _places(self, queries: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Where pairs stand among the file's; NOWHERE where they do not."""
        if not len(self.found.queries):
            return np.full(len(queries), NOWHERE)
        keys = self.found.queries * len(self.images) + self.found.images
        order, wanted = np.argsort(keys), queries * len(self.images) + images
        place = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        return np.where(keys[place] == wanted, place, NOWHERE)

    def _subset(self) -> Candidates:
        """The usable members of each query's subset, best first (ties: gallery order)."""
        queries, images = self.pairs("subset")
        place = self._places(queries, images)
        lacks = place == NOWHERE
        low = np.finfo(np.float32).min
        beneath = np.maximum(np.nextafter(self.below, np.float32(-np.inf)), low)
        scores = beneath[queries]
        scores[~lacks] = self.found.scores[place[~lacks]]
        order, ranks = grouped_best_first(queries, scores, images)
        sizes = np.bincount(queries, minlength=self.queries.num_rows)
        ranks = np.where(lacks[order], sizes[queries[order]], ranks)
        return Candidates(queries[order], images[order], ranks, scores[order])
