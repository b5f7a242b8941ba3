"""The part of a training split that is kept out of training, to select checkpoints on.

Validation data must stay unseen until the end, so which checkpoint is best is decided on training
queries that no training has seen. Which queries these are follows from their targets' ids alone,
so every stage and every run agrees.
"""

import hashlib

from cir_core.types import Benchmark, ImageId, Query, RunSplit, Split

SHARE = 0.03
"""540 of Fashion-IQ's 18,000 training queries: a standard error of 2 points of recall at most."""


def source_split(split: RunSplit) -> Split:
    """The dataset's own split that a run's split is taken from."""
    return "train" if split == "selection" else split


def is_kept_out(image_id: ImageId) -> bool:
    """Whether the image is one of those that no training may show: a fixed, even draw by id."""
    digest = hashlib.sha256(image_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") < SHARE * 2**64


def selection_queries(benchmark: Benchmark) -> Benchmark:
    """The queries with a target that is kept out; their galleries are what they name.

    A gallery of references, targets and subset members keeps validation cheap and hard: everything
    in it was chosen to resemble something else in it.
    """
    queries = tuple(query for query in benchmark.queries if _asks_for_kept_out(query))
    return Benchmark(
        galleries={
            category: _named(gallery, [query for query in queries if query.category == category])
            for category, gallery in benchmark.galleries.items()
        },
        queries=queries,
        files={image: benchmark.files[image] for query in queries for image in _images(query)},
    )


def training_queries(benchmark: Benchmark) -> Benchmark:
    """The queries whose reference and targets are not kept out, over galleries without the images
    that are. A subset's other members do not matter: no training looks at them."""
    return Benchmark(
        galleries={
            category: tuple(image for image in gallery if not is_kept_out(image))
            for category, gallery in benchmark.galleries.items()
        },
        queries=tuple(
            query
            for query in benchmark.queries
            if not any(map(is_kept_out, (query.reference_id, *query.targets)))
        ),
        files={image: names for image, names in benchmark.files.items() if not is_kept_out(image)},
    )


def _asks_for_kept_out(query: Query) -> bool:
    return any(is_kept_out(target) for target in query.targets)


def _images(query: Query) -> tuple[ImageId, ...]:
    return (query.reference_id, *query.targets, *query.subset)


def _named(gallery: tuple[ImageId, ...], queries: list[Query]) -> tuple[ImageId, ...]:
    """In the gallery's order, then what it lacks."""
    named = dict.fromkeys(image for query in queries for image in _images(query))
    return tuple(dict.fromkeys([*(image for image in gallery if image in named), *named]))
