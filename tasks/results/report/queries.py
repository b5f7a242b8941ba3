"""Section ``queries``: all queries, for the page's browser, and samples that need no script."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from storage.products import SUMS
from tasks.results.album import Picture
from tasks.results.report.query_rows import MOST_BYTES, QueryRows, query_rows
from tasks.results.report.source import Source
from tasks.results.samples import Samples, samples
from tasks.stages.output import folder_of

PICTURES = "pictures"
"""The folder beside the page."""

PICTURE_SUMS = f"{PICTURES}/{SUMS}"

STATIC = 3
"""Candidates of each stage, of a sample that is shown without a script."""

COLUMNS = {
    "id": "query_id",
    "text": "text",
    "words": "words",
    "negation": "has_negation",
    "targets1": "targets_stage1",
    "targets2": "targets_stage2",
    "rank1": "stage1_rank",
    "rank2": "stage2_rank",
    "gained": "places_gained",
    "imageRank": "image_rank",
    "textRank": "text_rank",
    "candidate": "is_candidate",
    "cannot": "cannot",
    "scores1": "stage1_scores",
    "scores2": "stage2_scores",
    "others1": "stage1_others",
    "others2": "stage2_others",
}
"""Of the browser's data, by the names that its script has for them: as they are in SQL."""

IMAGES = {
    "targets": "targets",
    "top1": "stage1_images",
    "top2": "stage2_images",
    "subset1": "subset_stage1",
    "subset2": "subset_stage2",
}
"""Lists of images, likewise; the data has their numbers."""


@dataclass(frozen=True)
class Queries:
    """What the template shows. ``data`` is the browser's; ``pictures`` its pictures within the
    page, by the numbers of their images."""

    groups: Sequence[Samples]
    known: QueryRows
    images: Sequence[str]
    drawn: Sequence[Picture]

    @property
    def categories(self) -> list[str]:
        return sorted({row["category"] for row in self.known.rows})

    @property
    def category_choices(self) -> list[tuple[str, str]]:
        return [(name, name) for name in self.categories]

    @property
    def has_labels(self) -> bool:
        return any(row["targets"] is not None for row in self.known.rows)

    @property
    def has_unanswered(self) -> bool:
        """Whether any labelled query cannot be answered."""
        return any(row["cannot"] for row in self.known.rows)

    @property
    def halves(self) -> list[tuple[str, str]]:
        """Filters of what one half finds, as far as it was asked (``cir-pipeline analyse``)."""
        return [
            (half, f"right by the {half} alone")
            for half in ("image", "text")
            if any(row[f"{half}_rank"] is not None for row in self.known.rows)
        ]

    @property
    def has_folder(self) -> bool:
        return any(picture.file for picture in self.drawn)

    @property
    def not_drawn(self) -> int:
        """Images without a picture: there is no room for more, or they cannot be shown."""
        return sum(picture == Picture() for picture in self.drawn)

    @property
    def pictures(self) -> list[str]:
        return [picture.inline for picture in self.drawn]

    def data(self, **told: Any) -> dict[str, Any]:
        """Columns of queries, which name images by number; a column without any value is left
        out, but for those that the script counts on."""
        rows, numbers = self.known.rows, self.numbers
        category = {name: number for number, name in enumerate(self.categories)}
        columns: dict[str, list[Any]] = {
            "category": [category[row["category"]] for row in rows],
            "reference": [numbers[row["reference_id"]] for row in rows],
        }
        for name, column in COLUMNS.items():
            columns[name] = [row[column] for row in rows]
        for name, column in IMAGES.items():
            columns[name] = [_numbered(row[column], numbers) for row in rows]
        kept = ("targets", "top1", "top2", "rank1", "rank2", "gained", "candidate")
        return told | {
            "all": self.known.count,
            "categories": self.categories,
            "images": self.images,
            "files": [picture.file for picture in self.drawn],
            "columns": {
                name: values
                for name, values in columns.items()
                if name in kept or any(value is not None for value in values)
            },
        }

    def picture(self, image_id: str) -> str:
        """Of a sample; as ``Picture.inline``."""
        return self.drawn[self.numbers[image_id]].inline

    def sampled(self, group: Samples) -> Iterator[Mapping[str, Any]]:
        """Rows of a group's samples, with ``first``: by stage, the first candidates."""
        by_id = {row["query_id"]: row for row in self.known.rows}
        for row in map(by_id.__getitem__, group.query_ids):
            tops = {1: row["stage1_images"], 2: row["stage2_images"]}
            yield row | {"first": {stage: top[:STATIC] for stage, top in tops.items() if top}}

    @cached_property
    def ids(self) -> set[str]:
        """Of the queries that the page has."""
        return {row["query_id"] for row in self.known.rows}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Of the images that the page mentions."""
        return {image: number for number, image in enumerate(self.images)}


def queries(source: Source) -> Queries:
    """Of a run; writes the folder with the larger pictures, too, or removes one of nothing."""
    groups = samples(source.catalog, source.run)
    first = list(dict.fromkeys(chain.from_iterable(group.query_ids for group in groups)))
    known = query_rows(source, first, most=MOST_BYTES)
    images = _by_use(known.rows, set(first))
    drawn: list[Picture] = []

    def draw(folder: Path) -> None:
        drawn.extend(source.album.pictures(images, folder, files=source.pictures))

    source.evaluated.store.put_folder(f"{folder_of(source.evaluated)}/{PICTURES}", draw)
    return Queries(groups, known, images, drawn)


def _by_use(rows: Sequence[Mapping[str, Any]], first: set[str]) -> list[str]:
    """Every image that the page mentions: those of samples, then those mentioned most often."""
    samples = chain.from_iterable(_mentioned(row) for row in rows if row["query_id"] in first)
    uses = Counter(chain.from_iterable(map(_mentioned, rows)))
    often = sorted(uses, key=lambda image: -uses[image])  # a stable sort: in order of mention
    return list(dict.fromkeys(chain(samples, often)))


def _mentioned(row: Mapping[str, Any]) -> Iterable[str]:
    lists = (row[column] or () for column in IMAGES.values())
    return chain([row["reference_id"]], *lists)


def _numbered(images: Sequence[str] | None, numbers: Mapping[str, int]) -> list[int] | None:
    return None if images is None else [numbers[image] for image in images]
