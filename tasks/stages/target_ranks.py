"""Where a run ranks the targets of its labelled queries: what recall is counted from."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.metrics.recall import TargetRanks
from cir_core.protocols import Protocol
from cir_core.types import Pool
from storage.views import Ingested

NEVER = np.iinfo(np.int32).max
"""Rank of a target that no ranking can contain: a miss at every k."""


def labelled(ingested: Ingested) -> pa.Table:
    """The queries that have targets, as they were ingested."""
    queries = ingested.read("queries")
    return queries.filter(pc.is_valid(queries["targets"]))


def counted(protocol: Protocol, queries: pa.Table) -> pa.Table:
    """Labelled queries with the targets that recall counts: all, or the first alone."""
    if protocol.recall_on != "first":
        return queries
    first = pc.list_slice(queries["targets"], 0, 1)
    return queries.set_column(queries.schema.get_field_index("targets"), "targets", first)


def labels_of(queries: pa.Table) -> pa.Table:
    """A row per labelled query and target: ``query_id`` and ``image_id``."""
    return pa.table(
        {
            "query_id": queries["query_id"].take(pc.list_parent_indices(queries["targets"])),
            "image_id": pc.list_flatten(queries["targets"]),
        }
    )


def target_ranks(
    queries: pa.Table, targets: pa.Table, rankings: pa.Table, pool: Pool
) -> TargetRanks:
    """Best target's rank per labelled query under both stages; in the gallery pool, a target that
    is no candidate keeps stage 1's rank. ``targets`` has ranks in the whole gallery."""
    labels, keys = labels_of(queries), ["query_id", "image_id"]
    mine = rankings.filter(pc.equal(rankings["pool"], pool)).join(labels, keys, join_type="inner")
    named = targets.join(labels, keys, join_type="inner")
    stage1 = _best(mine if pool == "subset" else named, "stage1_rank")
    stage2 = _best(mine, "rank")
    ids = queries["query_id"].to_pylist()
    outside = {} if pool == "subset" else stage1
    return TargetRanks(
        category=queries["category"].to_pylist(),
        stage1=np.array([stage1.get(query, NEVER) for query in ids]),
        stage2=np.array([stage2.get(query, outside.get(query, NEVER)) for query in ids]),
    )


def _best(table: pa.Table, column: str) -> dict[str, int]:
    best = table.group_by("query_id").aggregate([(column, "min")])
    return dict(zip(best["query_id"].to_pylist(), best[f"{column}_min"].to_pylist(), strict=True))
