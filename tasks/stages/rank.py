"""Retrieved and their scores to rankings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import StoreCorrupt
from cir_core.ordering import grouped_best_first
from cir_core.planning.disk import Counts
from cir_core.ports import Widths
from cir_core.protocols import Subset
from storage import schemas
from storage.tables import rows_of
from storage.views import Ingested, Ranked, Retrieved, Scored
from tasks.stages.stage import ReadyPart, Stage


@dataclass(frozen=True)
class Rank(Stage[Ranked]):
    """The part rankings: every candidate with both stages' ranks and scores.

    Within a query and pool, candidates are ordered by stage 2's score, ties by gallery position.
    Where the protocol takes a subset from the main order, its members that are candidates come
    first, as re-ranked, then the others as stage 1 left them.

    Raises StoreCorrupt when a candidate has no score.
    """

    ingested: Ingested
    candidates: Retrieved
    scored: Scored

    makes = Ranked
    version = 2
    seconds_per_pair = 1.9e-6

    def settings(self) -> Mapping[str, Any]:
        return {"subset": self.ingested.protocol.subset}

    def inputs(self) -> Mapping[str, str]:
        return {"retrieve": self.candidates.fingerprint, "rerank": self.scored.fingerprint}

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """The columns of the candidates, 16 bytes, a score and a rank more. zstd about halves this,
        which is not counted upon."""
        return 24 * counts.pairs

    def work(self, shards: Sequence[str]) -> Iterator[ReadyPart]:
        table = (
            self.candidates.read("candidates")
            .join(self.scored.read("scores"), ["query_id", "image_id"])
            .join(self.ingested.read("queries").select(["query_id", "category"]), "query_id")
            .join(self.ingested.read("categories"), "category")
            .join(self.ingested.read("gallery"), ["gallery", "image_id"])
        )
        if table["stage2_score"].null_count:
            raise StoreCorrupt(
                f"{table['stage2_score'].null_count} candidates have no score",
                item=str(self.scored.folder),
                remedy="delete this folder and run the same command again",
            )
        yield ReadyPart(self.made, "rankings", _ranked(table, self.ingested.protocol.subset))


def _ranked(table: pa.Table, subset: Subset) -> pa.Table:
    scored = _ordered(table, table["stage2_score"].to_numpy())
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
    ids = pa.chunked_array([pc.unique(table["query_id"])])
    query = rows_of(table["query_id"], ids.take(pc.sort_indices(ids)))
    group = 2 * query + pc.equal(table["pool"], "subset").to_numpy()
    order, ranks = grouped_best_first(group, scores, table["position"].to_numpy())
    ranked = table.take(order).append_column(
        schemas.RANKINGS.field("rank"), pa.array(ranks, pa.int32())
    )
    return ranked.select(schemas.RANKINGS.names).cast(schemas.RANKINGS)
