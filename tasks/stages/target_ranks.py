"""Where a run ranks the targets of its labelled queries: what recall is counted from."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.metrics.placing import AllTargetRanks
from cir_core.metrics.recall import TargetRanks
from cir_core.protocols import Protocol
from cir_core.types import Pool
from storage import schemas
from storage.views import Evaluated, Ingested, Ranked, Retrieved

NEVER = np.iinfo(np.int32).max
"""Rank of a target that no ranking can contain: a miss at every k."""


def labelled(ingested: Ingested) -> pa.Table:
    """The queries that have targets, as they were ingested."""
    queries = ingested.read("queries")
    return queries.filter(pc.is_valid(queries["targets"]))


def labelled_by_id(ingested: Ingested) -> pa.Table:
    """``labelled`` in the order of their ids."""
    return labelled(ingested).sort_by("query_id")


def last_order(candidates: Retrieved, ranked: Ranked | None) -> pa.Table:
    """The candidates with their ``rank``: as stage 2 has them, or as stage 1 left them, which then
    have no score of stage 2."""
    if ranked is not None:
        return ranked.read("rankings")
    found = candidates.read("candidates")
    return found.append_column(schemas.RANK, found["stage1_rank"])


def labelled_ranks(evaluated: Evaluated) -> tuple[list[str], dict[Pool, TargetRanks]]:
    """The labelled queries of a run that was re-ranked by id, in order, and where it ranks their
    targets, by pool: what its recall is counted from. No subset where the protocol has none."""
    ingested = evaluated.ingested
    protocol, queries = ingested.protocol, labelled_by_id(ingested)
    targets = evaluated.candidates.read("targets")
    rankings = evaluated.ranked.read("rankings")
    return queries["query_id"].to_pylist(), ranks_by_pool(protocol, queries, targets, rankings)


def ranks_by_pool(
    protocol: Protocol, queries: pa.Table, targets: pa.Table, rankings: pa.Table
) -> dict[Pool, TargetRanks]:
    """``target_ranks`` of the targets that count for recall."""
    pools: tuple[Pool, ...] = ("gallery", "subset") if protocol.subset_ks else ("gallery",)
    asked = counted(protocol, queries)
    return {pool: target_ranks(asked, targets, rankings, pool) for pool in pools}


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


def all_target_ranks(queries: pa.Table, targets: pa.Table, rankings: pa.Table) -> AllTargetRanks:
    """Ranks of every target in the gallery; one that is no candidate keeps stage 1's rank."""
    keys = ["query_id", "image_id"]
    reranked = rankings.filter(pc.equal(rankings["pool"], "gallery")).select([*keys, "rank"])
    joined = labels_of(queries).join(targets, keys).join(reranked, keys)
    stage1 = pc.fill_null(joined["stage1_rank"], NEVER)
    stage2 = pc.coalesce(joined["rank"], stage1)
    ranks: dict[str, list[tuple[int, int]]] = {}
    for query, before, after in zip(
        joined["query_id"].to_pylist(), stage1.to_pylist(), stage2.to_pylist(), strict=True
    ):
        ranks.setdefault(query, []).append((before, after))
    columns = [np.array(ranks[query]).T for query in queries["query_id"].to_pylist()]
    return AllTargetRanks(
        category=queries["category"].to_pylist(),
        stage1=[before for before, _ in columns],
        stage2=[after for _, after in columns],
    )
