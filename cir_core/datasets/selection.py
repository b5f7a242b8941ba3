"""The part of a training split that is kept out of training, to select checkpoints on.

Validation data must stay unseen until the end, so which checkpoint is best is decided on training
queries that no training has seen. What is kept out are whole groups of images: a picture whose
near-duplicates were trained on says little of unseen ones. Which they are follows from the
annotations alone, so every stage and every run agrees.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cir_core.types import Benchmark, ImageId, Query, RunSplit, Split

SHARE = 0.03
"""540 of Fashion-IQ's 18,000 training queries: a standard error of 2 points of recall at most."""

ENOUGH = 500
"""Queries with which recall is known to 4.4 points (95 %) at worst; fewer data give up to MOST."""

MOST = 0.1
"""Of small data, what training can spare."""

LARGEST = 1 / 3
"""Of all queries: what the one group may have that is kept out where all of them are large."""


@dataclass(frozen=True)
class KeptOut:
    """``images`` are those that no training may show, ``groups`` what their groups are called, and
    ``named`` every ``Query.group`` in these. ``group_of`` says what the group of every image is
    called that a labelled query names. ``whole``: no training query names an image of these groups,
    as reference or as target; otherwise the data are one knot, and images were taken one by one."""

    images: frozenset[ImageId]
    groups: frozenset[str]
    named: frozenset[str]
    group_of: Mapping[ImageId, str]
    whole: bool


def source_split(split: RunSplit) -> Split:
    """The dataset's own split that a run's split is taken from."""
    return "train" if split == "selection" else split


def keep_out(benchmark: Benchmark) -> KeptOut:
    """What is kept out of a training split: groups in the order of a hash of their names, until
    they have 3 % of the labelled queries, of fewer than 17,000 queries 500, of fewer than 5,000 a
    tenth. A group that would more than double this is passed over; where that leaves too little,
    the smallest group is kept out if it has a third of the queries at most, and single images
    otherwise (``whole`` is False). Never more than half of the queries; of fewer than two, none.

    A group is what queries join: images of one query belong together, and so do queries of one
    ``Query.group``. It is called by its first such name, else by its first image.
    """
    queries = [query for query in benchmark.queries if query.targets]
    group_of, sizes = _groups(queries)
    wanted = math.ceil(max(SHARE * len(queries), min(ENOUGH, MOST * len(queries))))
    chosen = _choose(sizes, wanted, len(queries) // 2)
    if 2 * sum(sizes[name] for name in chosen) < wanted:
        smallest = min(sizes, key=lambda name: (sizes[name], _draw(name)), default="")
        chosen = [smallest] if sizes.get(smallest, 0) <= LARGEST * len(queries) else []
    if chosen:
        images = frozenset(image for image, name in group_of.items() if name in chosen)
        named = {query.group for query in queries if query.reference_id in images} - {""}
        return KeptOut(images, frozenset(chosen), frozenset(named), group_of, whole=True)
    alone: dict[str, int] = {}
    for query in queries:
        alone[query.targets[0]] = alone.get(query.targets[0], 0) + 1
    images = frozenset(map(ImageId, _choose(alone, wanted, len(queries) // 2)))
    alike = {image: image for image in group_of}
    return KeptOut(images, frozenset(images), frozenset(), alike, whole=False)


def selection_queries(benchmark: Benchmark, sizes: Mapping[str, int]) -> Benchmark:
    """The queries with a target that is kept out, over galleries of the whole split.

    ``sizes`` bounds a category's gallery, where the data that are searched in the end are known to
    be fewer than the training split: all that is kept out or named by these queries, and then
    other groups as a whole (to the last one), in the order of the hash. Categories without a query
    are left out.
    """
    kept = keep_out(benchmark)
    queries = tuple(query for query in benchmark.queries if _asks_for(query, kept.images))
    galleries = {
        category: _gallery(
            benchmark.galleries[category],
            [query for query in queries if query.category == category],
            kept,
            sizes.get(category),
        )
        for category in benchmark.galleries
        if any(query.category == category for query in queries)
    }
    shown = dict.fromkeys(image for gallery in galleries.values() for image in gallery)
    shown |= dict.fromkeys(image for query in queries for image in _images(query))
    return replace(
        benchmark,
        galleries=galleries,
        queries=queries,
        files={image: names for image, names in benchmark.files.items() if image in shown},
        notes=(*benchmark.notes, *_notes(queries, kept)),
    )


def training_queries(benchmark: Benchmark) -> Benchmark:
    """The labelled queries whose reference and targets are not kept out, over galleries of what
    these queries name: negatives are drawn from them, and an image that is never an answer, such as
    one that validation asks for, would only be learned as a wrong one. A subset's other members
    do not matter: no training looks at them."""
    kept = keep_out(benchmark).images
    queries = tuple(
        query
        for query in benchmark.queries
        if query.targets and kept.isdisjoint((query.reference_id, *query.targets))
    )
    named = {image for query in queries for image in (query.reference_id, *query.targets)}
    asked = {query.category for query in queries}
    return replace(
        benchmark,
        galleries={
            category: tuple(image for image in gallery if image in named)
            for category, gallery in benchmark.galleries.items()
            if category in asked
        },
        queries=queries,
        files={image: names for image, names in benchmark.files.items() if image in named},
    )


def _groups(queries: Sequence[Query]) -> tuple[dict[ImageId, str], dict[str, int]]:
    """Each named image's group, and each group's number of queries: connected components."""
    parent: dict[tuple[bool, str], tuple[bool, str]] = {}

    def root(node: tuple[bool, str]) -> tuple[bool, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for query in queries:
        ends = sorted(map(root, _nodes(query)))
        for end in ends[1:]:
            parent[end] = ends[0]  # the first of all: named groups before images, then by name
    names = {node: root(node)[1] for node in list(parent)}
    sizes: dict[str, int] = {}
    for query in queries:
        name = names[True, query.reference_id]
        sizes[name] = sizes.get(name, 0) + 1
    return {ImageId(node): name for (is_image, node), name in names.items() if is_image}, sizes


def _nodes(query: Query) -> Iterator[tuple[bool, str]]:
    """What a query joins: its images (True), and the name of its group (False)."""
    if query.group:
        yield False, query.group
    for image in (query.reference_id, *query.targets):
        yield True, image


def _choose(sizes: Mapping[str, int], wanted: int, most: int) -> list[str]:
    """Names in the order of their hash until they have the wanted number, twice of it at most."""
    chosen: list[str] = []
    taken = 0
    for name in sorted(sizes, key=_draw):
        if taken >= wanted:
            break
        if taken + sizes[name] <= min(2 * wanted, most):
            chosen.append(name)
            taken += sizes[name]
    return chosen


def _draw(name: str) -> bytes:
    """A place in an order that is fixed and even."""
    return hashlib.sha256(name.encode()).digest()


def _gallery(
    gallery: tuple[ImageId, ...], queries: Sequence[Query], kept: KeptOut, size: int | None
) -> tuple[ImageId, ...]:
    """In the gallery's order, then what it lacks of what the queries name."""
    named = dict.fromkeys(image for query in queries for image in _images(query))
    if size is None or size >= len(gallery):
        return tuple(dict.fromkeys([*gallery, *named]))
    shown = {image for image in gallery if image in kept.images or image in named}
    rest: dict[str, list[ImageId]] = {}
    for image in gallery:
        if image not in shown:
            rest.setdefault(kept.group_of.get(image, image), []).append(image)
    for name in sorted(rest, key=_draw):
        if len(shown) >= size:
            break
        shown.update(rest[name])
    return tuple(dict.fromkeys([*(image for image in gallery if image in shown), *named]))


def _asks_for(query: Query, kept: frozenset[ImageId]) -> bool:
    return not kept.isdisjoint(query.targets)


def _images(query: Query) -> tuple[ImageId, ...]:
    return (query.reference_id, *query.targets, *query.subset)


def _notes(queries: Sequence[Query], kept: KeptOut) -> tuple[str, ...]:
    if kept.whole:
        return ()
    return (
        f"selection: {len(queries)} queries, kept out image by image, since the queries join "
        "nearly all images: pictures like them are trained on, and recall is higher than on unseen "
        "ones. A column `group` (own data) says what belongs together",
    )
