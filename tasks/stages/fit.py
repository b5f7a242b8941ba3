"""The weight of a late fusion, fitted on the queries that no training has seen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import PreflightError
from cir_core.late_fusion import fused_scores, weights_to_try
from cir_core.metrics.recall import AVERAGE, TargetRanks, recall_metrics
from cir_core.ordering import grouped_best_first
from cir_core.types import Scale
from storage import schemas
from storage.tables import rows_of
from storage.views import Fitted, Ingested, Retrieved, Scored
from tasks.stages.scored import pools_of, scored_candidates
from tasks.stages.stage import ReadyPart, Stage

NEVER = np.iinfo(np.int32).max
"""Rank of a target that no ranking can contain: a miss at every k."""


@dataclass(frozen=True)
class Fit(Stage[Fitted]):
    """The part curve: recall of the selection queries' galleries with each weight that is tried.

    The chosen weight has the highest mean of R@k over the protocol's k, of macro averages over the
    categories; of several the lowest, which is nearest to stage 2 alone. Raises PreflightError
    where no query has both a target and candidates.
    """

    ingested: Ingested
    candidates: Retrieved
    scored: Scored
    scale: Scale

    makes = Fitted
    version = 1

    def settings(self) -> Mapping[str, Any]:
        protocol = self.ingested.protocol.name
        split = self.ingested.setting("split")
        return {"late_fusion_scores": self.scale, "protocol": protocol, "split": split}

    def inputs(self) -> Mapping[str, str]:
        return {
            "ingest": self.ingested.fingerprint,
            "retrieve": self.candidates.fingerprint,
            "rerank": self.scored.fingerprint,
        }

    def work(self, shards: Sequence[str]) -> Iterator[ReadyPart]:
        table = scored_candidates(self.ingested, self.candidates, self.scored)
        table = table.filter(pc.equal(table["pool"], "gallery"))
        stage1, stage2 = (table[name].to_numpy() for name in ("stage1_score", "stage2_score"))
        group, position = pools_of(table), table["position"].to_numpy()
        asked = self._asked()
        if not (asked.num_rows and table.num_rows):
            raise PreflightError(
                "there are no queries to fit a late fusion on",
                item=f"split {self.ingested.setting('split')}",
                cause="no query there has both a target and candidates",
                remedy="give the weight as a number: --late-fusion 0.3",
            )
        best = _Best.of(asked, table, self.candidates.read("targets"))
        rows = []
        for weight in weights_to_try(stage1, stage2, group, position, self.scale):
            fused = fused_scores(stage1, stage2, group, position, weight=weight, scale=self.scale)
            recalls = self._recalls(asked, best, *grouped_best_first(group, fused, position))
            rows += [{"weight": weight, **row} for row in recalls]
        chosen = _chosen(rows)
        rows = [{**row, "is_chosen": row["weight"] == chosen} for row in rows]
        yield ReadyPart(self.made, "curve", pa.Table.from_pylist(rows, schemas.FUSION_CURVE))

    def _asked(self) -> pa.Table:
        """Labelled queries, with the targets that count for recall."""
        queries = self.ingested.read("queries")
        queries = queries.filter(pc.is_valid(queries["targets"]))
        counted = queries["targets"]
        if self.ingested.protocol.recall_on == "first":
            counted = pc.list_slice(counted, 0, 1)
        return pa.table(
            {"query_id": queries["query_id"], "category": queries["category"], "targets": counted}
        )

    def _recalls(
        self, asked: pa.Table, best: "_Best", order: np.ndarray, ranks: np.ndarray
    ) -> list[dict[str, Any]]:
        after = best.after(order, ranks)
        found = TargetRanks(asked["category"].to_pylist(), best.before, after)
        metrics = [
            one
            for one in recall_metrics(found, ks=self.ingested.protocol.ks, pool="gallery")
            if one.stage == "stage2"
        ]
        averaged = [one for one in metrics if one.category == AVERAGE] or metrics
        return [{"k": one.k, "recall": one.value, "n": one.n} for one in averaged]


@dataclass(frozen=True)
class _Best:
    """Of each query the rank of its best target: ``before``, as stage 1 has it; and which row of
    the candidates is a target of which query, NEVER one that is none."""

    before: np.ndarray
    query_of_row: np.ndarray

    @classmethod
    def of(cls, asked: pa.Table, table: pa.Table, targets: pa.Table) -> "_Best":
        """``targets`` are ranks in the whole gallery."""
        lists = asked["targets"].combine_chunks()
        query = pc.list_parent_indices(lists).to_numpy()
        labels = _keys(asked["query_id"].take(pa.array(query)), pc.list_flatten(lists))
        row = rows_of(_keys(targets["query_id"], targets["image_id"]), labels)
        before = np.full(asked.num_rows, NEVER)
        ranks = targets["stage1_rank"].to_numpy()
        np.minimum.at(before, query[row[row >= 0]], ranks[row >= 0])
        row = rows_of(_keys(table["query_id"], table["image_id"]), labels)
        return cls(before, np.where(row >= 0, query[row], NEVER))

    def after(self, order: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """As these ranks of the candidates, in this order, have it; a target that is no candidate
        keeps stage 1's."""
        after = np.full(len(self.before), NEVER)
        query = self.query_of_row[order]
        np.minimum.at(after, query[query != NEVER], ranks[query != NEVER])
        return np.where(after == NEVER, self.before, after)


def _keys(queries: Any, images: Any) -> pa.ChunkedArray:
    """One text a pair; the length says where the first id ends, whatever the ids hold."""
    lengths = pc.cast(pc.utf8_length(queries), pa.string())
    keys = pc.binary_join_element_wise(lengths, queries, images, ":")
    return keys if isinstance(keys, pa.ChunkedArray) else pa.chunked_array([keys])


def _chosen(rows: Sequence[Mapping[str, Any]]) -> float:
    """The weight with the highest mean recall; the lowest of several."""
    recalls: dict[float, list[float]] = {}
    for row in rows:
        recalls.setdefault(row["weight"], []).append(row["recall"])
    means = {weight: float(np.mean(values)) for weight, values in recalls.items()}
    return min(means, key=lambda weight: (-means[weight], weight))
