"""Is this copy of a dataset whole? Judged from records, ids, hashes and names; no file is read."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from cir_core.datasets.about import Counts
from cir_core.picture_files import is_read
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, ImageId, Query


@dataclass(frozen=True)
class Counted:
    """``expected`` is the published number, None where none is known."""

    category: str
    what: str
    expected: int | None
    found: int


@dataclass(frozen=True)
class Evaluable:
    """How much of a protocol can be evaluated: queries that can be asked and answered, gallery
    members (of all categories) that can be searched."""

    queries: int
    usable_queries: int
    members: int
    usable_members: int


def compare_counts(benchmark: Benchmark, published: Counts | None) -> list[Counted]:
    """Queries and gallery of each category, beside the published numbers."""
    counted = []
    for category, gallery in benchmark.galleries.items():
        queries = sum(query.category == category for query in benchmark.queries)
        known = published or Counts({}, {})
        counted.append(Counted(category, "queries", known.queries.get(category), queries))
        counted.append(Counted(category, "gallery", known.gallery.get(category), len(gallery)))
    return counted


def evaluable(benchmark: Benchmark, protocol: Protocol, usable: Collection[ImageId]) -> Evaluable:
    """``benchmark`` is the protocol's own. A query counts when its reference is usable, some target
    is usable, in the gallery and not removed from it, and its whole subset is usable; a query
    without label has no target to lose."""
    gallery_of = benchmark.gallery_of
    galleries = {name: set(ids) for name, ids in benchmark.distinct_galleries.items()}
    members = [image for gallery in benchmark.galleries.values() for image in gallery]
    return Evaluable(
        queries=len(benchmark.queries),
        usable_queries=sum(
            _is_evaluable(query, galleries[gallery_of[query.category]], protocol, usable)
            for query in benchmark.queries
        ),
        members=len(members),
        usable_members=sum(image in usable for image in members),
    )


def _is_evaluable(
    query: Query, gallery: set[ImageId], protocol: Protocol, usable: Collection[ImageId]
) -> bool:
    removed = {query.reference_id} if protocol.removes_reference else set()
    answers = [
        image
        for image in query.targets
        if image in usable and image in gallery and image not in removed
    ]
    return (
        query.reference_id in usable
        and (bool(answers) or not query.targets)
        and all(member in usable for member in query.subset)
    )


def ambiguous_queries(queries: Iterable[Query]) -> list[tuple[Query, ...]]:
    """Groups of queries that ask the same (category, reference, text) and want different targets:
    no method can answer all of a group."""
    groups: dict[tuple[str, str, str], list[Query]] = defaultdict(list)
    for query in queries:
        if query.targets:
            groups[query.category, query.reference_id, query.text].append(query)
    return [
        tuple(group) for group in groups.values() if len({query.targets for query in group}) > 1
    ]


def outside_gallery(benchmark: Benchmark) -> tuple[list[Query], list[Query]]:
    """Queries whose reference, and queries some target of which, is not in their gallery."""
    gallery_of = benchmark.gallery_of
    galleries = {name: set(ids) for name, ids in benchmark.distinct_galleries.items()}
    references, targets = [], []
    for query in benchmark.queries:
        gallery = galleries[gallery_of[query.category]]
        if query.reference_id not in gallery:
            references.append(query)
        if not gallery.issuperset(query.targets):
            targets.append(query)
    return references, targets


def in_several_categories(benchmark: Benchmark) -> dict[ImageId, tuple[str, ...]]:
    """Images that are members of more than one category's gallery."""
    categories: dict[ImageId, list[str]] = defaultdict(list)
    for category, gallery in benchmark.galleries.items():
        for image in gallery:
            categories[image].append(category)
    return {image: tuple(names) for image, names in categories.items() if len(names) > 1}


def same_bytes(hashes: Mapping[ImageId, str]) -> list[tuple[str, ...]]:
    """Groups of ids whose files hold the same bytes, from each id's hash."""
    groups: dict[str, list[str]] = defaultdict(list)
    for image, sha256 in hashes.items():
        groups[sha256].append(image)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def misnamed(
    missing: Mapping[str, Sequence[str]], names: Callable[[str], Iterable[str]]
) -> dict[str, str]:
    """For missing images, by their possible paths: a file beside one of these whose name differs
    in case, in Unicode form or in its extension alone.

    ``names`` lists a folder.
    """

    @cache
    def by_stem(folder: str) -> dict[str, str]:
        images = (name for name in names(folder) if is_read(name))
        return {
            _stem(name): name if folder == "." else f"{folder}/{name}"
            for name in sorted(images, reverse=True)
        }

    found = {}
    for image, places in missing.items():
        for place in places:
            folder, _, name = place.rpartition("/")  # pathlib takes seconds for 100,000 names
            other = by_stem(folder or ".").get(_stem(name))
            if other is not None:
                found[image] = other
                break
    return found


def misplaced(
    missing: Mapping[str, Sequence[str]], names: Callable[[str], Iterable[str]]
) -> dict[str, str]:
    """For missing images, by their possible paths: a file of the same name, up to what ``misnamed``
    finds, in a folder within the one where it is looked for, or in the folder above that."""

    @cache
    def around(folder: str) -> list[str]:
        below = sorted(name for name in names(folder) if "." not in name)  # files have endings
        above = [folder.rpartition("/")[0] or "."] if folder != "." else []
        return [*(name if folder == "." else f"{folder}/{name}" for name in below), *above]

    elsewhere = {
        image: [
            f"{near}/{name}"
            for folder, _, name in (place.rpartition("/") for place in places)
            for near in around(folder or ".")
        ]
        for image, places in missing.items()
    }
    return misnamed(elsewhere, names)


def several_files(
    files: Mapping[ImageId, Sequence[str]], names: Callable[[str], Collection[str]]
) -> dict[ImageId, list[str]]:
    """Images for which more than one of the possible paths exists, and those; the first is the one
    that counts. ``names`` lists a folder."""
    several = {}
    for image, places in files.items():
        if len(places) > 1:
            there = [place for place in places if _name(place) in names(_folder(place))]
            if len(there) > 1:
                several[image] = there
    return several


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", name.rpartition(".")[0]).casefold()
