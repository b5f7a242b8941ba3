"""The galleries that are searched, each kept once, and which of their images a run could use."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cir_core.metrics.galleries import SearchedGallery, searched
from cir_core.types import Benchmark, ImageId, Query, QueryId
from storage import schemas
from storage.views import Encoded, Ingested


def gallery_table(benchmark: Benchmark) -> pa.Table:
    """Each distinct gallery once, in order."""
    galleries = benchmark.distinct_galleries
    return pa.table(
        {
            "gallery": [name for name, images in galleries.items() for _ in images],
            "position": [row for images in galleries.values() for row in range(len(images))],
            "image_id": [image for images in galleries.values() for image in images],
        },
        schemas.GALLERY,
    )


def category_table(benchmark: Benchmark) -> pa.Table:
    """Which gallery each category has."""
    named = benchmark.gallery_of
    return pa.table({"category": list(named), "gallery": list(named.values())}, schemas.CATEGORIES)


def categories_by_gallery(ingested: Ingested) -> dict[str, list[str]]:
    """The categories that are asked of each gallery; both in their order."""
    grouped: dict[str, list[str]] = {}
    for row in ingested.read("categories").to_pylist():
        grouped.setdefault(row["gallery"], []).append(row["category"])
    return grouped


def shards_by_gallery(ingested: Ingested) -> dict[str, str]:
    """Of stages that work gallery by gallery: its number, since its own name may be no file's."""
    return {name: f"{number:05d}" for number, name in enumerate(categories_by_gallery(ingested))}


def largest_gallery(ingested: Ingested) -> int:
    """Images of the largest gallery, usable or not; 1 at least."""
    counts = ingested.read("gallery")["gallery"].value_counts()
    return max([1, *counts.field("counts").to_pylist()])


def searched_galleries(ingested: Ingested, encoded: Encoded | None) -> dict[str, SearchedGallery]:
    """Each gallery once, by its name; before anything is ``encoded``, as if all images that were
    ingested could be decoded."""
    usable = usable_images(ingested, encoded)
    sha256_of = dict(zip(usable["image_id"].to_pylist(), usable["sha256"].to_pylist(), strict=True))
    members = ingested.read("gallery").sort_by("position")
    return {
        name: searched(
            name,
            members.filter(pc.equal(members["gallery"], name))["image_id"].to_pylist(),
            sha256_of,
        )
        for name in categories_by_gallery(ingested)
    }


def usable_images(ingested: Ingested, encoded: Encoded | None) -> pa.Table:
    """Rows of the table ``images``, without those that were ingested and could not be decoded:
    these are no more usable than the ones that are missing."""
    images = ingested.read("images")
    if encoded is None:
        return images
    undecoded = encoded.read("problems")["item"].combine_chunks()
    return images.filter(pc.invert(pc.is_in(images["image_id"], undecoded)))


def benchmark_of(queries: pa.Table, gallery: pa.Table, categories: pa.Table) -> Benchmark:
    """The split again, of its tables, the gallery by position; where its files lie is not told."""
    galleries: dict[str, list[ImageId]] = {}
    for row in gallery.to_pylist():
        galleries.setdefault(row["gallery"], []).append(row["image_id"])
    members = {name: tuple(images) for name, images in galleries.items()}
    return Benchmark(
        galleries={
            row["category"]: members.get(row["gallery"], ()) for row in categories.to_pylist()
        },
        queries=tuple(_query(row) for row in queries.to_pylist()),
        files={},
    )


def _query(row: Mapping[str, Any]) -> Query:
    return Query(
        query_id=QueryId(row["query_id"]),
        category=row["category"],
        reference_id=row["reference_id"],
        text=row["text"],
        targets=tuple(row["targets"] or ()),
        subset=tuple(row["subset"] or ()),
        other_text=row["other_text"] or "",
    )
