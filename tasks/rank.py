"""Candidates and their scores to rankings."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import StoreCorrupt
from cir_core.ordering import grouped_best_first
from storage import schemas
from storage.artifacts import Artifact, Identity, Made

VERSION = 1


def rank(store: Path, ingested: str, candidates: str, scores: str) -> Made:
    """The artifact ``rank``: part rankings, every candidate with both stages' ranks and scores.

    Within a query and pool, candidates are ordered by stage 2's score, ties by gallery position.
    Raises StoreCorrupt when a candidate has no score.
    """
    identity = Identity("rank", VERSION, {}, {"retrieve": candidates, "rerank": scores})
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    source = Artifact(store, "ingest", ingested)
    table = (
        Artifact(store, "retrieve", candidates)
        .read("candidates")
        .join(Artifact(store, "rerank", scores).read("scores"), ["query_id", "image_id"])
        .join(source.read("queries").select(["query_id", "category"]), "query_id")
        .join(source.read("gallery"), ["category", "image_id"])
    )
    if table["stage2_score"].null_count:
        raise StoreCorrupt(
            f"{table['stage2_score'].null_count} candidates have no score",
            item=str(Artifact(store, "rerank", scores).folder),
            remedy="delete this folder and run the same command again",
        )
    artifact.write_part("rankings", _ordered(table))
    artifact.finish(identity, ["rankings"])
    return Made(identity.fingerprint, reused=False)


def _ordered(table: pa.Table) -> pa.Table:
    """Sorted by query and pool, best first; the join before it kept no order."""
    pools = pc.binary_join_element_wise(table["query_id"], table["pool"], "\0")
    _, group = np.unique(pools.to_numpy(), return_inverse=True)
    order, ranks = grouped_best_first(
        group, table["stage2_score"].to_numpy(), table["position"].to_numpy()
    )
    ranked = table.take(order).append_column(
        schemas.RANKINGS.field("rank"), pa.array(ranks, pa.int32())
    )
    return ranked.select(schemas.RANKINGS.names).cast(schemas.RANKINGS)
