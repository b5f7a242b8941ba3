"""Annotations and images to normalised tables; every image hashed, every problem listed."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa

from cir_core.datasets.adapter import Adapter
from cir_core.datasets.registry import Dataset
from cir_core.doctor.checkup import several_files
from cir_core.errors import UsageError
from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Widths
from cir_core.types import Benchmark, ImageId, Query, RunSplit
from storage import schemas
from storage.sources.annotations import AnnotationReader
from storage.sources.images import Folders
from storage.sources.looks import Looks
from storage.sources.roots import require_root
from storage.store import Store
from storage.views import Ingested
from tasks.machine import Machine
from tasks.stages.gallery import category_table, gallery_table
from tasks.stages.scan import Images, scan_images, tell_notes, tell_several
from tasks.stages.stage import ReadyPart, Stage, make, make_here

ROW_BYTES = 200
"""Of an image or a query: ids, a path, a hash, a text."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ingest(Stage[Ingested]):
    """Parts images, gallery, categories, queries, problems, as the protocol wants them; of the
    named categories, or of all. A gallery that several categories have is kept once. The input
    ``texts`` names what the queries ask, whatever their gallery.

    A split must be read before this can be named (``read_split``): only the bytes of its files say
    whether they changed. A bad image is a row of ``problems``; whether that is one too many is
    decided by the flow.
    """

    named: Mapping[str, Any]
    read: Mapping[str, str]
    tables: Callable[[], Mapping[str, pa.Table]]

    makes = Ingested
    version = 5

    def settings(self) -> Mapping[str, Any]:
        return self.named

    def inputs(self) -> Mapping[str, str]:
        return self.read

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        """Its time is the last reading's."""
        return Effort(images=forecast.work.images, queries=forecast.work.queries)

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        return ROW_BYTES * (counts.images + counts.queries)

    def work(self, shards: Sequence[str]) -> Iterator[ReadyPart]:
        for kind, table in self.tables().items():
            images, queries = (table.num_rows * (kind == one) for one in ("images", "queries"))
            yield ReadyPart(self.made, kind, table, Effort(images, queries))


@dataclass(frozen=True)
class Reading:
    """What ingesting hands on beside its artifact: how each annotation file and image looked before
    it was read, and the folders all of whose images are in the gallery."""

    ingested: Ingested
    reused: bool
    looks: Looks
    searched: Mapping[str, tuple[ImageId, ...]]


def ingest(
    store: Store,
    data_root: Path,
    dataset: Dataset,
    split: RunSplit,
    categories: Sequence[str],
    protocol: str,
) -> Reading:
    """Read a split, and make its artifact ``ingest`` if that is not there.

    Image files are always read and hashed. Raises UsageError for an unknown category,
    PreflightError for a missing folder, and AnnotationError for a missing or malformed annotation
    file.
    """
    began, adapter = perf_counter(), dataset.adapter
    categories = _choose(adapter, dataset.name, categories)
    require_root(data_root)
    annotations = AnnotationReader(data_root)
    benchmark = dataset.parse(split, categories, annotations.read, dataset.protocol(protocol))
    tell_notes(benchmark)
    folders = Folders(data_root, benchmark.folders)
    tell_several(several_files(benchmark.files, folders.names))
    images = scan_images(folders, benchmark.files, looks=annotations.looks)
    listed = [problem.row(problem.item) for problem in benchmark.problems] + images.problems
    gallery, categories_of = gallery_table(benchmark), category_table(benchmark)

    def tables() -> dict[str, pa.Table]:
        problems = listed + _query_problems(benchmark, images)
        _log.info(
            "ingested %d images, %d queries, %d problems",
            len(images.rows), len(benchmark.queries), len(problems),
        )  # fmt: skip
        return {
            "images": pa.Table.from_pylist(images.rows, schemas.IMAGES),
            "gallery": gallery,
            "categories": categories_of,
            "queries": _queries_table(benchmark.queries),
            "problems": pa.Table.from_pylist(problems, schemas.PROBLEMS),
        }

    stage = Ingest(
        store,
        named={
            "dataset": dataset.name,
            "split": split,
            "categories": list(benchmark.galleries),
            "protocol": protocol,
        },
        read=annotations.inputs()
        | {
            "images": _digest(images.rows),
            "problems": _digest(listed),
            "gallery": _digest(gallery.to_pylist() + categories_of.to_pylist()),
            "texts": _digest(_asked(benchmark)),
        },
        tables=tables,
    )
    reused = not make(stage, Machine(), make_here, since=began)
    searched = _searched(annotations, benchmark)
    return Reading(stage.made, reused, annotations.looks, searched)


def _searched(
    annotations: AnnotationReader, benchmark: Benchmark
) -> dict[str, tuple[ImageId, ...]]:
    """The folders that are a gallery, by what was listed there."""
    galleries = benchmark.galleries.values()
    return {
        folder: listing.images
        for folder, listing in annotations.listings.items()
        if listing.images in galleries
    }


def _choose(adapter: Adapter, dataset: str, categories: Sequence[str]) -> Sequence[str]:
    """Each category once, in the published order; as given where only the data know them."""
    if not adapter.categories:
        return categories
    unknown = set(categories) - set(adapter.categories)
    if unknown:
        raise UsageError(
            f"{dataset} has no category {', '.join(sorted(unknown))}",
            remedy=f"choose from {', '.join(adapter.categories)}",
        )
    return [name for name in adapter.categories if name in (categories or adapter.categories)]


def _query_problems(benchmark: Benchmark, images: Images) -> list[dict[str, str]]:
    """Queries that cannot be asked, or whose answer cannot be found: they count as misses. An
    unusable image is a problem of its own, and these follow from it, in a gallery or not."""
    usable = {row["image_id"] for row in images.rows}
    galleries = {name: set(images) for name, images in benchmark.distinct_galleries.items()}
    gallery_of = benchmark.gallery_of
    problems = []
    for query in benchmark.queries:
        if query.reference_id not in usable:
            problems.append(("reference_unusable", query, query.reference_id))
        for target in query.targets:
            if target not in usable:
                problems.append(("target_unusable", query, target))
            elif target not in galleries[gallery_of[query.category]]:
                problems.append(("target_not_in_gallery", query, target))
    return [
        {
            "item": query.query_id,
            "kind": kind,
            "message": f"{image}, category {query.category}, text {query.text!r}",
        }
        for kind, query, image in problems
    ]


def _queries_table(queries: Sequence[Query]) -> pa.Table:
    return pa.table(
        {
            "query_id": [query.query_id for query in queries],
            "category": [query.category for query in queries],
            "reference_id": [query.reference_id for query in queries],
            "text": [query.text for query in queries],
            "targets": [query.targets or None for query in queries],
            "subset": [query.subset or None for query in queries],
            "other_text": [query.other_text or None for query in queries],
        },
        schemas.QUERIES,
    )


def _asked(benchmark: Benchmark) -> list[dict[str, Any]]:
    """What fusing reads of each query: protocols that agree in it share the fused queries."""
    return [
        {
            "query_id": query.query_id,
            "reference_id": query.reference_id,
            "text": query.text,
            "other_text": query.other_text,
        }
        for query in benchmark.queries
    ]


def _digest(rows: list[dict[str, Any]]) -> str:
    """sha256 of the rows' values, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(list(row.values())).encode() + b"\n")
    return digest.hexdigest()
