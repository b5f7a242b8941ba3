"""Candidates with both stages' scores: what is ranked, and what a late fusion is fitted on."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import StoreCorrupt
from storage.tables import rows_of
from storage.views import Ingested, Retrieved, Scored


def scored_candidates(ingested: Ingested, candidates: Retrieved, scored: Scored) -> pa.Table:
    """The candidates, in any order, with ``stage2_score``, ``category`` and the gallery's
    ``position``. Raises StoreCorrupt when one has no score."""
    table = (
        candidates.read("candidates")
        .join(scored.read("scores"), ["query_id", "image_id"])
        .join(ingested.read("queries").select(["query_id", "category"]), "query_id")
        .join(ingested.read("categories"), "category")
        .join(ingested.read("gallery"), ["gallery", "image_id"])
    )
    if table["stage2_score"].null_count:
        raise StoreCorrupt(
            f"{table['stage2_score'].null_count} candidates have no score",
            item=str(scored),
            remedy="delete this folder and run the same command again",
        )
    return table


def pools_of(table: pa.Table) -> np.ndarray:
    """A number for each row's query and pool, in the order of the query ids."""
    ids = pa.chunked_array([pc.unique(table["query_id"])])
    query = rows_of(table["query_id"], ids.take(pc.sort_indices(ids)))
    return 2 * query + pc.equal(table["pool"], "subset").to_numpy()
