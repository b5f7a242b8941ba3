"""What a run answers the queries that are compared: values of each measure, and its orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from cir_core.errors import PreflightError
from cir_core.metrics.overlap import Lists
from cir_core.metrics.placing import average_precision
from cir_core.metrics.recall import CIRR_AVERAGE_K, TargetRanks
from cir_core.protocols import Protocol
from cir_core.submissions.formats import Stage
from cir_core.types import Pool
from storage.views import Evaluated
from tasks.results.titles import title_of
from tasks.stages.target_ranks import all_target_ranks, labelled_by_id, last_order, ranks_by_pool


@dataclass(frozen=True)
class Measure:
    """As the table ``metrics`` names it; ``k`` is 0 where there is none."""

    metric: str
    k: int

    @property
    def title(self) -> str:
        """For people."""
        return title_of(self.metric, self.k)


def measures_of(protocols: Sequence[Protocol]) -> list[Measure]:
    """Those that all of the protocols have, in the first's order."""
    every = [_measures(protocol) for protocol in protocols]
    return [one for one in every[0] if all(one in others for others in every[1:])]


def _measures(protocol: Protocol) -> list[Measure]:
    found = [Measure("recall", k) for k in protocol.ks]
    found += [Measure("recall_subset", k) for k in protocol.subset_ks]
    found += [Measure("cirr_average", 0)] if protocol.subset_ks else []
    found += [Measure("map", k) for k in protocol.map_ks]
    return [*found, Measure("mrr", 0)]


@dataclass(frozen=True)
class Answers:
    """Of one run, by one stage's order. ``queries`` are those with targets among the compared ones,
    in order; ``ranks`` those of the targets that count, ``target_ranks.NEVER`` where a target has
    none. ``order`` has the gallery's candidates of all compared queries, with their ``rank``.
    ``labelled`` of the run's queries have targets, compared or not."""

    run: Evaluated
    stage: Stage
    queries: Sequence[str]
    category: Sequence[str]
    ranks: Int[np.ndarray, " query"]
    values: Mapping[Measure, Float[np.ndarray, " query"]]
    order: pa.Table
    labelled: int

    @cached_property
    def candidates(self) -> frozenset[str]:
        """The queries that have an order."""
        return frozenset(self.order["query_id"].unique().to_pylist())

    def lists(self, queries: pa.Array, images: pa.Array) -> Lists:
        """The orders of these queries, over these images, by their places there."""
        query = pc.index_in(self.order["query_id"], value_set=queries)
        known = self.order.append_column("query", query).filter(pc.is_valid(query))
        item = pc.index_in(known["image_id"], value_set=images)
        return Lists(*(np.asarray(one, np.int32) for one in (known["query"], item, known["rank"])))


def last_stage(run: Evaluated) -> Stage:
    return "stage2" if run.is_reranked else "stage1"


def answers_of(
    run: Evaluated, stage: Stage, queries: Sequence[str], measures: Sequence[Measure]
) -> Answers:
    """Of the run by the stage's order, to these queries. Raises PreflightError for a stage 2 that
    was not run."""
    if stage == "stage2" and not run.is_reranked:
        raise PreflightError(
            "a run that ended with stage 1 has no order of stage 2",
            item=f"run {run.run_id}",
            remedy="pass --stage stage1, or leave --stage out: each run's last order is compared",
        )
    rankings = last_order(run.candidates, run.ranked if run.is_reranked else None)
    targets, protocol = run.candidates.read("targets"), run.ingested.protocol
    chosen = pa.array(queries, pa.string())
    every = labelled_by_id(run.ingested)
    asked = _only(every, chosen)
    ranks = ranks_by_pool(protocol, asked, targets, rankings) if asked.num_rows else {}
    values = {one: _values(one, ranks, stage) for one in measures if one.metric != "map" and ranks}
    deep = [one for one in measures if one.metric == "map"]
    if deep and ranks:
        found = getattr(all_target_ranks(asked, targets, rankings), stage)
        values |= {
            one: np.array([average_precision(of_query, one.k) for of_query in found])
            for one in deep
        }
    none = np.zeros(0, dtype=np.int64)
    return Answers(
        run=run,
        stage=stage,
        queries=asked["query_id"].to_pylist(),
        category=asked["category"].to_pylist(),
        ranks=getattr(ranks["gallery"], stage) if ranks else none,
        values={one: values[one] for one in measures if one in values},
        order=_order(_only(rankings, chosen), stage),
        labelled=every.num_rows,
    )


def _values(
    measure: Measure, ranks: Mapping[Pool, TargetRanks], stage: Stage
) -> Float[np.ndarray, " query"]:
    """Of each query, between 0 and 1."""
    gallery: Int[np.ndarray, " query"] = getattr(ranks["gallery"], stage)
    if measure.metric == "recall":
        return (gallery <= measure.k).astype(float)
    if measure.metric == "mrr":
        return 1 / gallery.astype(float)
    subset: Int[np.ndarray, " query"] = getattr(ranks["subset"], stage)
    if measure.metric == "recall_subset":
        return (subset <= measure.k).astype(float)
    return ((gallery <= CIRR_AVERAGE_K).astype(float) + (subset <= 1)) / 2


def _only(table: pa.Table, queries: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["query_id"], value_set=queries))


def _order(rankings: pa.Table, stage: Stage) -> pa.Table:
    mine = rankings.filter(pc.equal(rankings["pool"], "gallery"))
    rank = mine["rank" if stage == "stage2" else "stage1_rank"]
    return mine.select(["query_id", "image_id"]).append_column("rank", rank)
