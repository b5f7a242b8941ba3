"""Rankings and labels to metrics under the dataset's protocol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.metrics.galleries import SearchedGallery, together
from cir_core.metrics.placing import (
    mean_average_precision,
    reciprocal_rank_metrics,
)
from cir_core.metrics.recall import (
    Metric,
    cirr_average,
    coverage_metrics,
    recall_metrics,
)
from cir_core.planning.effort import Effort
from cir_core.protocols import Protocol
from storage import schemas
from storage.views import Encoded, Evaluated, Ingested, Ranked, Retrieved
from tasks.stages.gallery import categories_by_gallery, searched_galleries
from tasks.stages.stage import ReadyPart, Stage
from tasks.stages.target_ranks import (
    all_target_ranks,
    counted,
    labelled_by_id,
    last_order,
    target_ranks,
)


@dataclass(frozen=True)
class Evaluate(Stage[Evaluated]):
    """Parts metrics and galleries; ``k`` is the candidates', or auto: their coverage is then that
    of all that each query has, at no k. Queries without label are left out;
    queries that could not be asked, or whose target is not in the gallery, count as misses.
    Where nothing was re-ranked (no ``ranked``), there is no number of stage 2, nor a gain."""

    ingested: Ingested
    encoded: Encoded
    candidates: Retrieved
    ranked: Ranked | None
    k: int | Literal["auto"]

    makes = Evaluated
    version = 4
    seconds_per_pair = 0.2e-6

    def settings(self) -> Mapping[str, Any]:
        return {"protocol": self.ingested.protocol.name, "k": self.k}

    def inputs(self) -> Mapping[str, str]:
        return {
            "ingest": self.ingested.fingerprint,
            "retrieve": self.candidates.fingerprint,
            **({} if self.ranked is None else {"rank": self.ranked.fingerprint}),
        }

    def work(self, shards: Sequence[str]) -> Iterator[ReadyPart]:
        protocol, galleries = self.ingested.protocol, _galleries(self.ingested, self.encoded)
        targets = self.candidates.read("targets")
        rankings = last_order(self.candidates, self.ranked)
        queries = labelled_by_id(self.ingested)
        metrics = _metrics(protocol, self.k, queries, targets, rankings)
        if self.ranked is None:
            metrics = [metric for metric in metrics if metric.stage == "stage1"]
        rows = [
            {"protocol": protocol.name, **asdict(metric), **_of_gallery(metric.category, galleries)}
            for metric in metrics
        ]
        described = [asdict(gallery) for gallery in galleries.values()]
        view = self.made
        effort = Effort(queries=queries.num_rows)
        yield ReadyPart(view, "metrics", pa.Table.from_pylist(rows, schemas.METRICS), effort)
        yield ReadyPart(view, "galleries", pa.Table.from_pylist(described, schemas.GALLERIES))


def _galleries(source: Ingested, encoded: Encoded) -> dict[str, SearchedGallery]:
    """By category, in order; a gallery that several categories have is hashed once."""
    galleries = searched_galleries(source, encoded)
    found = {
        category: replace(galleries[name], category=category)
        for name, categories in categories_by_gallery(source).items()
        for category in categories
    }
    return {category: found[category] for category in source.setting("categories")}


def _of_gallery(category: str, galleries: dict[str, SearchedGallery]) -> dict[str, int | str]:
    """A metric's columns about the gallery: its category's, or of an average all together."""
    one = galleries.get(category) or together(category, list(galleries.values()))
    return {
        "gallery_images": one.images,
        "gallery_missing": one.missing,
        "gallery_sha256": one.sha256,
    }


def _metrics(
    protocol: Protocol,
    k: int | Literal["auto"],
    queries: pa.Table,
    targets: pa.Table,
    rankings: pa.Table,
) -> list[Metric]:
    if not queries.num_rows:
        return []
    asked = counted(protocol, queries)
    gallery = target_ranks(asked, targets, rankings, "gallery")
    metrics = recall_metrics(gallery, ks=protocol.ks, pool="gallery")
    metrics += coverage_metrics(gallery, k=_ks_of(asked, rankings) if k == "auto" else k)
    metrics += reciprocal_rank_metrics(gallery)
    if protocol.map_ks:
        every = all_target_ranks(queries, targets, rankings)
        metrics += mean_average_precision(every, ks=protocol.map_ks)
    if protocol.subset_ks:
        subset = target_ranks(queries, targets, rankings, "subset")
        metrics += recall_metrics(
            subset, ks=protocol.subset_ks, pool="subset", metric="recall_subset"
        )
        metrics += cirr_average(gallery, subset)
    return metrics


def _ks_of(queries: pa.Table, rankings: pa.Table) -> np.ndarray:
    """How many candidates each query has, which are stage 1's first."""
    mine = rankings.filter(pc.equal(rankings["pool"], "gallery"))
    counts = mine.group_by("query_id").aggregate([([], "count_all")])
    ks = dict(zip(counts["query_id"].to_pylist(), counts["count_all"].to_pylist(), strict=True))
    return np.array([ks.get(query, 0) for query in queries["query_id"].to_pylist()])
