"""Rankings and labels to metrics under the dataset's protocol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.metrics.galleries import SearchedGallery, searched, together
from cir_core.metrics.placing import (
    AllTargetRanks,
    mean_average_precision,
    reciprocal_rank_metrics,
)
from cir_core.metrics.recall import (
    Metric,
    TargetRanks,
    cirr_average,
    coverage_metrics,
    recall_metrics,
)
from cir_core.planning.effort import Effort
from cir_core.protocols import Protocol
from cir_core.types import Pool
from storage import schemas
from storage.views import Encoded, Evaluated, Ingested, Ranked, Retrieved
from tasks.stages.gallery import categories_by_gallery, usable_images
from tasks.stages.stage import ReadyPart, Stage
from tasks.stages.target_ranks import NEVER, counted, labelled, labels_of, target_ranks


@dataclass(frozen=True)
class Evaluate(Stage[Evaluated]):
    """Parts metrics and galleries; ``k`` is the candidates'. Queries without label are left out;
    queries that could not be asked, or whose target is not in the gallery, count as misses.
    Where nothing was re-ranked (no ``ranked``), there is no number of stage 2, nor a gain."""

    ingested: Ingested
    encoded: Encoded
    candidates: Retrieved
    ranked: Ranked | None
    k: int

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
        targets, rankings = self.candidates.read("targets"), self._rankings()
        queries = _asked(self.ingested)
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

    def _rankings(self) -> pa.Table:
        """As stage 2 has them, or as stage 1 left them."""
        if self.ranked is not None:
            return self.ranked.read("rankings")
        found = self.candidates.read("candidates")
        return found.append_column("rank", found["stage1_rank"])


def labelled_ranks(evaluated: Evaluated) -> tuple[list[str], dict[Pool, TargetRanks]]:
    """The labelled queries of a run by id, in order, and where it ranks their targets, by pool:
    what its recall is counted from. No subset where the protocol has none."""
    ingested = evaluated.ingested
    protocol, queries = ingested.protocol, _asked(ingested)
    targets = evaluated.candidates.read("targets")
    rankings = evaluated.ranked.read("rankings")
    pools: tuple[Pool, ...] = ("gallery", "subset") if protocol.subset_ks else ("gallery",)
    asked = counted(protocol, queries)
    ranks = {pool: target_ranks(asked, targets, rankings, pool) for pool in pools}
    return queries["query_id"].to_pylist(), ranks


def _asked(ingested: Ingested) -> pa.Table:
    """Labelled queries in the order of their ids."""
    return labelled(ingested).sort_by("query_id")


def _galleries(source: Ingested, encoded: Encoded) -> dict[str, SearchedGallery]:
    """By category, in order; a gallery that several categories have is hashed once."""
    usable = usable_images(source, encoded)
    sha256_of = dict(zip(usable["image_id"].to_pylist(), usable["sha256"].to_pylist(), strict=True))
    members = source.read("gallery").sort_by("position")
    found: dict[str, SearchedGallery] = {}
    for name, categories in categories_by_gallery(source).items():
        images = members.filter(pc.equal(members["gallery"], name))["image_id"].to_pylist()
        one = searched(name, images, sha256_of)
        found |= {category: replace(one, category=category) for category in categories}
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
    protocol: Protocol, k: int, queries: pa.Table, targets: pa.Table, rankings: pa.Table
) -> list[Metric]:
    if not queries.num_rows:
        return []
    asked = counted(protocol, queries)
    gallery = target_ranks(asked, targets, rankings, "gallery")
    metrics = recall_metrics(gallery, ks=protocol.ks, pool="gallery")
    metrics += coverage_metrics(gallery, k=k)
    metrics += reciprocal_rank_metrics(gallery)
    if protocol.map_ks:
        every = _all_target_ranks(queries, targets, rankings)
        metrics += mean_average_precision(every, ks=protocol.map_ks)
    if protocol.subset_ks:
        subset = target_ranks(queries, targets, rankings, "subset")
        metrics += recall_metrics(
            subset, ks=protocol.subset_ks, pool="subset", metric="recall_subset"
        )
        metrics += cirr_average(gallery, subset)
    return metrics


def _all_target_ranks(queries: pa.Table, targets: pa.Table, rankings: pa.Table) -> AllTargetRanks:
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
