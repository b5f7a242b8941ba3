"""A user's own catalogue: a folder of images and a table of queries, with or without labels.

``docs/own-data.md`` is the description for users. An image's id is its path below the folder of
images, as it is written there, its ending included.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cir_core.datasets.adapter import ReadJson
from cir_core.datasets.listing_notes import listing_notes
from cir_core.datasets.near_names import ImageNames
from cir_core.datasets.own_rows import (
    OPTIONAL,
    REQUIRED,
    gallery_faults,
    query_faults,
    refuse,
    targets_of,
)
from cir_core.datasets.row_faults import shown
from cir_core.errors import AnnotationError, UsageError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, ImageId, Listing, Query, QueryId, Row, Rows, Split

CATEGORY = "own"
"""Of the only gallery, where neither images nor queries are told apart by category."""


@dataclass(frozen=True)
class Layout:
    """Where things are, below the data root. Without a ``gallery`` list all images are searched.
    ``descriptions`` and ``catalogue`` are read by pre-training alone."""

    images: str = "."
    queries: str = "queries.csv"
    gallery: str | None = None
    descriptions: str | None = None
    catalogue: str | None = None


@dataclass(frozen=True)
class OwnData:
    """Galleries: one per category where the gallery list has categories. Otherwise there is one
    gallery, and the categories of the queries, if any, only tell the numbers apart."""

    layout: Layout = Layout()
    categories: tuple[str, ...] = ()

    @property
    def images(self) -> str | None:
        return self.layout.images

    @property
    def descriptions(self) -> str | None:
        return self.layout.descriptions

    @property
    def catalogue(self) -> str | None:
        return self.layout.catalogue

    def described_files(self, image: ImageId) -> tuple[str, ...]:
        return (_path(self.layout.images, image),)

    def annotation_files(self, split: Split, categories: Sequence[str]) -> list[str]:
        _require_split(split)
        return [self.layout.queries, *([self.layout.gallery] if self.layout.gallery else [])]

    def parse(
        self, split: Split, categories: Sequence[str], read: ReadJson, protocol: Protocol
    ) -> Benchmark:
        """``files`` holds the gallery first, then the other images that queries name."""
        _require_split(split)
        folder: Listing = read(self.layout.images)
        names = _require_images(folder, self.layout.images)
        list_of_images = self._read_gallery(read, names)
        listed = _by_category(list_of_images, names)
        table: Rows = read(self.layout.queries)
        faults = query_faults(table, names, tuple(listed), protocol.removes_reference)
        refuse(self.layout.queries, faults)
        queries = tuple(_parse_query(row, index, names) for index, row in enumerate(table.entries))
        galleries = _galleries(listed, queries, folder.images)
        chosen = _choose(galleries, categories)
        queries = tuple(query for query in queries if query.category in chosen)
        return Benchmark(
            galleries=chosen,
            queries=queries,
            files=_files(self.layout.images, chosen, queries),
            folders=(self.layout.images,),
            notes=(
                *listing_notes(folder),
                *names.note(_named([list_of_images, table])),
                *_notes(self.layout.queries, table, queries),
            ),
            problems=folder.problems,
        )

    def _read_gallery(self, read: ReadJson, names: ImageNames) -> Rows:
        """Without a gallery list, no entries."""
        if self.layout.gallery is None:
            return Rows((), ())
        table: Rows = read(self.layout.gallery)
        refuse(self.layout.gallery, gallery_faults(table, names))
        return table


def _by_category(table: Rows, names: ImageNames) -> dict[str, tuple[ImageId, ...]]:
    """The listed images, under "" where there are no categories."""
    members: dict[str, dict[ImageId, None]] = {}
    for row in table.entries:
        mine = members.setdefault(row.values.get("category", ""), {})
        mine[names.meant(row.values["image"])] = None
    return {category: tuple(images) for category, images in members.items()}


def _require_images(folder: Listing, path: str) -> ImageNames:
    """Raises AnnotationError when there are none, saying what there is."""
    if folder.images:
        return ImageNames(folder.images)
    faults = [f"{problem.item}: {problem.what}" for problem in folder.problems]
    raise AnnotationError(
        "there are no images",
        item=path,
        cause="; ".join([*listing_notes(folder), *faults]),
        remedy="see docs/own-data.md",
    )


def _require_split(split: Split) -> None:
    """One table is both val and train; which part of it no training sees is decided elsewhere.
    Raises UsageError for ``test``, which elsewhere means that labels are withheld."""
    if split == "test":
        raise UsageError(
            "own data has no split test",
            remedy="leave --split out; choose another file of queries with --queries",
        )


def _parse_query(row: Row, index: int, names: ImageNames) -> Query:
    values = row.values
    return Query(
        query_id=QueryId(values.get("query_id", f"query-{index:05d}")),
        category=values.get("category", CATEGORY),
        reference_id=names.meant(values["reference"]),
        text=values["text"],
        targets=tuple(dict.fromkeys(map(names.meant, targets_of(values)))),
        group=values.get("group") or "",
    )


def _galleries(
    listed: Mapping[str, tuple[ImageId, ...]],
    queries: Sequence[Query],
    listing: tuple[ImageId, ...],
) -> dict[str, tuple[ImageId, ...]]:
    """By the gallery list's categories; or the one gallery for every category of the queries."""
    if listed and "" not in listed:
        return dict(listed)
    everything = listed.get("", listing)
    return dict.fromkeys((query.category for query in queries), everything)


def _choose(
    galleries: dict[str, tuple[ImageId, ...]], categories: Sequence[str]
) -> dict[str, tuple[ImageId, ...]]:
    unknown = [name for name in categories if name not in galleries]
    if unknown:
        raise UsageError(
            f"the data have no category {', '.join(map(shown, unknown))}",
            remedy=f"choose from {', '.join(map(shown, galleries))}",
        )
    return {name: images for name, images in galleries.items() if name in (categories or galleries)}


def _files(
    folder: str, galleries: Mapping[str, tuple[ImageId, ...]], queries: Sequence[Query]
) -> dict[ImageId, tuple[str, ...]]:
    images = [image for gallery in dict.fromkeys(galleries.values()) for image in gallery]
    images += [image for query in queries for image in (query.reference_id, *query.targets)]
    return {image: (_path(folder, image),) for image in images}


def _path(folder: str, image: ImageId) -> str:
    return image if folder == "." else f"{folder}/{image}"


def _named(tables: Iterable[Rows]) -> Iterator[str]:
    """Every image that the tables name, as they write it."""
    for table in tables:
        for row in table.entries:
            yield from (row.values[name] for name in ("image", "reference") if name in row.values)
            yield from targets_of(row.values)


def _notes(file: str, table: Rows, queries: Sequence[Query]) -> tuple[str, ...]:
    unread = [name for name in table.columns if name not in (*REQUIRED, *OPTIONAL)]
    empty = sum(not query.text for query in queries)
    notes = (
        [f"{file}: columns that are not read: {', '.join(map(shown, unread))}"] if unread else []
    )
    notes += [f"{file}: {empty} queries have an empty text"] if empty else []
    return tuple(notes)
