"""Fashion-IQ, and anything laid out like it (the demo is).

``captions/cap.{category}.{split}.json``, ``image_splits/split.{category}.{split}.json``,
``images/{id}.jpg`` or ``.png``. What the files call ``candidate`` is the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cir_core.datasets.adapter import ReadJson, expect, field
from cir_core.datasets.captions import CaptionRule, join_captions
from cir_core.errors import AnnotationError
from cir_core.types import Benchmark, ImageId, Query, QueryId, Split

CAPTIONS = 2
"""Per query: two annotators describe the same change."""


@dataclass(frozen=True)
class FashionIQ:
    """Original gallery (the ids of the split file), one per category."""

    caption_rule: CaptionRule = "published"
    categories: tuple[str, ...] = ("dress", "shirt", "toptee")

    def annotation_files(self, split: Split, categories: Sequence[str]) -> list[str]:
        return [
            file
            for category in categories
            for file in (_captions_file(category, split), _gallery_file(category, split))
        ]

    def parse(self, split: Split, categories: Sequence[str], read: ReadJson) -> Benchmark:
        galleries = {
            category: _parse_gallery(read(_gallery_file(category, split)), category, split)
            for category in categories
        }
        queries = tuple(
            self._parse_query(entry, category, split, index)
            for category in categories
            for index, entry in enumerate(
                expect(read(_captions_file(category, split)), list, _captions_file(category, split))
            )
        )
        images = [image for gallery in galleries.values() for image in gallery]
        images += [image for query in queries for image in (query.reference_id, *query.targets)]
        files = {image: image_files(image) for image in images}
        return Benchmark(galleries=galleries, queries=queries, files=files)

    def _parse_query(self, entry: object, category: str, split: Split, index: int) -> Query:
        file = _captions_file(category, split)
        reference = field(entry, "candidate", str, file, index)
        captions = field(entry, "captions", list, file, index)
        if len(captions) != CAPTIONS or not all(isinstance(caption, str) for caption in captions):
            raise AnnotationError(
                f"entry {index} of an annotation file does not have two captions",
                item=file,
                cause=f"found {captions!r}",
                remedy="compare the file with the published annotations",
            )
        targets: tuple[ImageId, ...] = ()
        if split != "test":
            targets = (ImageId(field(entry, "target", str, file, index)),)
        return Query(
            query_id=QueryId(f"{category}-{index:05d}"),
            category=category,
            reference_id=ImageId(reference),
            text=join_captions(captions[0], captions[1], self.caption_rule),
            targets=targets,
        )


def image_files(image_id: str) -> tuple[str, ...]:
    """Where an image may lie, relative to the data root."""
    return (f"images/{image_id}.jpg", f"images/{image_id}.png")


def _captions_file(category: str, split: Split) -> str:
    return f"captions/cap.{category}.{split}.json"


def _gallery_file(category: str, split: Split) -> str:
    return f"image_splits/split.{category}.{split}.json"


def _parse_gallery(content: object, category: str, split: Split) -> tuple[ImageId, ...]:
    file = _gallery_file(category, split)
    ids = expect(content, list, file)
    for index, image in enumerate(ids):
        if not isinstance(image, str):
            raise AnnotationError(
                f"entry {index} of a gallery file is not a string", item=file, cause=f"{image!r}"
            )
    return tuple(dict.fromkeys(ImageId(image) for image in ids))  # an id listed twice is one image
