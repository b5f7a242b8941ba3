"""Retrieved and their scores to rankings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.late_fusion import fused_scores
from cir_core.ordering import grouped_best_first
from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort
from cir_core.ports import Widths
from cir_core.protocols import Subset
from cir_core.types import Scale
from storage import schemas
from storage.views import Fitted, Ingested, Ranked, Retrieved, Scored
from tasks.stages.scored import pools_of, scored_candidates
from tasks.stages.stage import ReadyPart, Stage


@dataclass(frozen=True)
class LateFusion:
    """Of stage 1's score with stage 2's, in the final order; the weight is given, or fitted."""

    weight: float | Fitted
    scale: Scale

    def settings(self) -> dict[str, Any]:
        given = {} if isinstance(self.weight, Fitted) else {"late_fusion": self.weight}
        return {**given, "late_fusion_scores": self.scale}

    def inputs(self) -> dict[str, str]:
        return {Fitted.stage: self.weight.fingerprint} if isinstance(self.weight, Fitted) else {}

    def final(self, table: pa.Table) -> np.ndarray:
        """Scores to rank by."""
        weight = self.weight.weight if isinstance(self.weight, Fitted) else self.weight
        return fused_scores(
            table["stage1_score"].to_numpy(),
            table["stage2_score"].to_numpy(),
            pools_of(table),
            table["position"].to_numpy(),
            weight=weight,
            scale=self.scale,
        )


@dataclass(frozen=True)
class Rank(Stage[Ranked]):
    """The part rankings: every candidate with both stages' ranks and scores.

    Within a query and pool, candidates are ordered by stage 2's score, or what a late fusion makes
    of both stages' scores, ties by gallery position. Without one, nothing of it is in the name.
    Where the protocol takes a subset from the main order, its members that are candidates come
    first, as re-ranked, then the others as stage 1 left them.

    Raises StoreCorrupt when a candidate has no score.
    """

    ingested: Ingested
    candidates: Retrieved
    scored: Scored
    late_fusion: LateFusion | None = None

    makes = Ranked
    version = 2
    seconds_per_pair = 1.9e-6

    def settings(self) -> Mapping[str, Any]:
        fusion = {} if self.late_fusion is None else self.late_fusion.settings()
        return {"subset": self.ingested.protocol.subset, **fusion}

    def inputs(self) -> Mapping[str, str]:
        fitted = {} if self.late_fusion is None else self.late_fusion.inputs()
        made_of = {"retrieve": self.candidates.fingerprint, "rerank": self.scored.fingerprint}
        return {**made_of, **fitted}

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """The columns of the candidates, 16 bytes, a score and a rank more. zstd about halves this,
        which is not counted upon."""
        return 24 * counts.pairs

    def work(self, shards: Sequence[str]) -> Iterator[ReadyPart]:
        table = scored_candidates(self.ingested, self.candidates, self.scored)
        final = table["stage2_score"].to_numpy()
        if self.late_fusion is not None:
            final = self.late_fusion.final(table)
        ranked = _ranked(table, final, self.ingested.protocol.subset)
        effort = Effort(pairs=ranked.num_rows)
        yield ReadyPart(self.made, "rankings", ranked, effort)


def _ranked(table: pa.Table, final: np.ndarray, subset: Subset) -> pa.Table:
    scored = _ordered(table, final)
    if subset != "main_order":
        return scored
    of_gallery = pc.equal(scored["pool"], "gallery")
    gallery = scored.filter(of_gallery)
    members = table.filter(pc.equal(table["pool"], "subset")).join(
        gallery.select(["query_id", "image_id", "rank"]), ["query_id", "image_id"]
    )
    after_all = pc.add(members["stage1_rank"], np.iinfo(np.int32).max // 2)
    place = pc.coalesce(members["rank"], after_all).to_numpy()
    in_main_order = _ordered(members.drop_columns("rank"), -place.astype(float))
    return pa.concat_tables([gallery, in_main_order]).sort_by(
        [("query_id", "ascending"), ("pool", "ascending"), ("rank", "ascending")]
    )


def _ordered(table: pa.Table, scores: np.ndarray) -> pa.Table:
    """Sorted by query and pool, best first; the join before it kept no order."""
    order, ranks = grouped_best_first(pools_of(table), scores, table["position"].to_numpy())
    ranked = table.take(order).append_column(
        schemas.RANKINGS.field("rank"), pa.array(ranks, pa.int32())
    )
    return ranked.select(schemas.RANKINGS.names).cast(schemas.RANKINGS)
