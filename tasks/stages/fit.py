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
from storage.views import Fitted, Ingested, Retrieved, Scored
from tasks.stages.scored import pools_of, scored_candidates
from tasks.stages.stage import ReadyPart, Stage
from tasks.stages.target_ranks import counted, labelled, labels_of, target_ranks


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
        asked = counted(self.ingested.protocol, labelled(self.ingested))
        if not pc.any(pc.is_in(asked["query_id"], pc.unique(table["query_id"]))).as_py():
            raise PreflightError(
                "there are no queries to fit a late fusion on",
                item=f"split {self.ingested.setting('split')}",
                cause="no query there has both a target and candidates",
                remedy="give the weight as a number: --late-fusion 0.3",
            )
        targets, found = self.candidates.read("targets"), _of_targets(table, asked)
        rows = []
        for weight in weights_to_try(stage1, stage2, group, position, self.scale):
            fused = fused_scores(stage1, stage2, group, position, weight=weight, scale=self.scale)
            ranked = _ranked(found, *grouped_best_first(group, fused, position))
            recalls = self._recalls(target_ranks(asked, targets, ranked, "gallery"))
            rows += [{"weight": weight, **row} for row in recalls]
        chosen = _chosen(rows)
        rows = [{**row, "is_chosen": row["weight"] == chosen} for row in rows]
        yield ReadyPart(self.made, "curve", pa.Table.from_pylist(rows, schemas.FUSION_CURVE))

    def _recalls(self, found: TargetRanks) -> list[dict[str, Any]]:
        metrics = [
            one
            for one in recall_metrics(found, ks=self.ingested.protocol.ks, pool="gallery")
            if one.stage == "stage2"
        ]
        averaged = [one for one in metrics if one.category == AVERAGE] or metrics
        return [{"k": one.k, "recall": one.value, "n": one.n} for one in averaged]


def _of_targets(table: pa.Table, asked: pa.Table) -> pa.Table:
    """Those of the candidates that are targets, and which ``row`` each is."""
    rows = table.append_column("row", pa.array(np.arange(table.num_rows)))
    keys = ["query_id", "image_id"]
    return rows.join(labels_of(asked), keys, join_type="inner")


def _ranked(found: pa.Table, order: np.ndarray, ranks: np.ndarray) -> pa.Table:
    """With the ranks that all candidates, in this order, have."""
    rank = np.empty_like(ranks)
    rank[order] = ranks
    return found.append_column("rank", pa.array(rank[found["row"].to_numpy()]))


def _chosen(rows: Sequence[Mapping[str, Any]]) -> float:
    """The weight with the highest mean recall; the lowest of several."""
    recalls: dict[float, list[float]] = {}
    for row in rows:
        recalls.setdefault(row["weight"], []).append(row["recall"])
    means = {weight: float(np.mean(values)) for weight, values in recalls.items()}
    return min(means, key=lambda weight: (-means[weight], weight))
