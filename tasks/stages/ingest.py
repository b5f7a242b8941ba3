"""Annotations and images to normalised tables; every image hashed, every problem listed."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cir_core.datasets.adapter import Adapter
from cir_core.datasets.ids import twins
from cir_core.datasets.registry import Dataset
from cir_core.doctor.checkup import several_files
from cir_core.errors import UsageError
from cir_core.types import Benchmark, ImageId, Query, RunSplit
from storage import schemas
from storage.artifacts import Artifact, Identity
from storage.sources.annotations import AnnotationReader, require_root
from storage.sources.images import Folders
from tasks.stages.gallery import category_table, gallery_table
from tasks.stages.readings import Ingested
from tasks.stages.scan import Images, scan_images

VERSION = 5

EXAMPLES_SHOWN = 5

_log = logging.getLogger(__name__)


def ingest(
    store: Path,
    data_root: Path,
    dataset: Dataset,
    split: RunSplit,
    categories: Sequence[str],
    protocol: str,
) -> Ingested:
    """The artifact ``ingest``: parts images, gallery, categories, queries, problems, as the
    protocol wants them; of the named categories, or of all. A gallery that several categories have
    is kept once. Its input ``texts`` names what the queries ask, whatever their gallery.

    Image files are always read and hashed, since only their bytes can say whether they changed.
    Raises UsageError for an unknown category, PreflightError for a missing folder, and
    AnnotationError for a missing or malformed annotation file. A bad image is a row of
    ``problems``; whether that is one too many is decided by the flow.
    """
    adapter = dataset.adapter
    categories = _choose(adapter, dataset.name, categories)
    require_root(data_root)
    annotations = AnnotationReader(data_root)
    benchmark = dataset.parse(split, categories, annotations.read, dataset.protocol(protocol))
    _tell_notes(benchmark)
    folders = Folders(data_root, benchmark.folders)
    _tell_several(several_files(benchmark.files, folders.names))
    images = scan_images(folders, benchmark.files, looks=annotations.looks)
    listed = [problem.row(problem.item) for problem in benchmark.problems] + images.problems
    gallery, categories_of = gallery_table(benchmark), category_table(benchmark)
    identity = Identity(
        stage="ingest",
        version=VERSION,
        settings={
            "dataset": dataset.name,
            "split": split,
            "categories": list(benchmark.galleries),
            "protocol": protocol,
        },
        inputs=annotations.inputs()
        | {
            "images": _digest(images.rows),
            "problems": _digest(listed),
            "gallery": _digest(gallery.to_pylist() + categories_of.to_pylist()),
            "texts": _digest(_asked(benchmark)),
        },
    )
    artifact = Artifact.of(store, identity)
    reused = artifact.is_done
    made = Ingested(
        identity.fingerprint, reused, annotations.looks, _searched(annotations, benchmark)
    )
    if reused:
        return made
    problems = listed + _query_problems(benchmark, images)
    artifact.write_part("images", pa.Table.from_pylist(images.rows, schemas.IMAGES))
    artifact.write_part("gallery", gallery)
    artifact.write_part("categories", categories_of)
    artifact.write_part("queries", _queries_table(benchmark.queries))
    artifact.write_part("problems", pa.Table.from_pylist(problems, schemas.PROBLEMS))
    artifact.finish(identity, ["images", "gallery", "categories", "queries", "problems"])
    _log.info(
        "ingested %d images, %d queries, %d problems",
        len(images.rows), len(benchmark.queries), len(problems),
    )  # fmt: skip
    return made


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


def _tell_notes(benchmark: Benchmark) -> None:
    for note in benchmark.notes:
        _log.warning("%s", note)
    alike = twins(benchmark.files)
    if alike:
        told = ", ".join(f"{one!r} and {other!r}" for one, other in alike[:EXAMPLES_SHOWN])
        _log.warning(
            "%d image ids differ from another in case or Unicode form alone; they are different "
            "images here, but macOS and Windows may hold one file for both: %s",
            len(alike), told,
        )  # fmt: skip


def _tell_several(several: Mapping[ImageId, Sequence[str]]) -> None:
    """One file was taken of each of these images."""
    if several:
        told = [
            f"{there[0]}, not {', '.join(there[1:])}"
            for there in list(several.values())[:EXAMPLES_SHOWN]
        ]
        more = f"; ... and {len(several) - len(told)} more" if len(several) > len(told) else ""
        _log.warning(
            "%d images have several files, and the first of the possible names is taken: %s%s",
            len(several), "; ".join(told), more,
        )  # fmt: skip


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
