"""Rankings with what was asked: the rows that leave the store, whoever writes them."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cir_core.submissions.formats import Stage
from storage import schemas
from storage.views import Evaluated
from tasks.stages.target_ranks import last_order

ROWS_AT_ONCE = 10_000
"""Rows that share an Arrow array: a text is repeated for each candidate, and one array of strings
holds 2 GB at most."""


def read_rankings(evaluated: Evaluated) -> pa.Table:
    """The candidates in the run's last order: as re-ranked, or as stage 1 left them, which then
    have no score of stage 2."""
    ranked = evaluated.ranked if evaluated.is_reranked else None
    return last_order(evaluated.candidates, ranked)


def ranking_rows(queries: pa.Table, rankings: pa.Table, stage: Stage = "stage2") -> pa.Table:
    """``schemas.EXPORT``: queries in the dataset's order, within one its pools, best first by the
    stage's rank. Queries without candidates have no rows; rankings that have no scores of stage 2
    give none."""
    place: Any = pc.index_in(rankings["query_id"], value_set=queries["query_id"].combine_chunks())
    rank = "rank" if stage == "stage2" else "stage1_rank"
    keys = [(name, "ascending") for name in ("place", "pool", rank)]
    order = pc.sort_indices(rankings.append_column("place", place), sort_keys=keys)
    asked = queries.select(["category", "reference_id", "text"])
    known = {*rankings.column_names, *asked.column_names}
    schema = pa.schema([column for column in schemas.EXPORT if column.name in known])
    slices = [schema.empty_table()]
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order.slice(start, ROWS_AT_ONCE)
        mine = rankings.take(rows)
        for name, column in zip(asked.column_names, asked.take(place.take(rows)), strict=True):
            mine = mine.append_column(name, column)
        slices.append(mine.select(schema.names).cast(schema))
    return pa.concat_tables(slices)
