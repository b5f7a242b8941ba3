"""Fashion-IQ, and anything laid out like it (the demo is).

``captions/cap.{category}.{split}.json``, ``image_splits/split.{category}.{split}.json``,
``images/{id}.jpg`` or ``.png``. What the files call ``candidate`` is the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cir_core.datasets.adapter import ReadJson, expect, field
from cir_core.datasets.captions import join_captions
from cir_core.errors import AnnotationError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, CaptionRule, ImageId, Query, QueryId, Split

CAPTIONS = 2
"""Per query: two annotators describe the same change."""


@dataclass(frozen=True)
class FashionIQ:
    """One gallery per category, in the order of the split file. Fashion-IQ keeps its test targets
    to itself, so there they are not read; the demo's are (``labelled_test``). The demo alone has
    ``descriptions``, and with them a catalogue."""

    categories: tuple[str, ...] = ("dress", "shirt", "toptee")
    labelled_test: bool = False
    descriptions: str | None = None
    catalogue: str | None = None
    images: str | None = None

    def described_files(self, image: ImageId) -> tuple[str, ...]:
        return image_files(image)

    def annotation_files(self, split: Split, categories: Sequence[str]) -> list[str]:
        return [
            file
            for category in categories
            for file in (_captions_file(category, split), _gallery_file(category, split))
        ]

    def parse(
        self, split: Split, categories: Sequence[str], read: ReadJson, protocol: Protocol
    ) -> Benchmark:
        galleries = {
            category: _parse_gallery(read(_gallery_file(category, split)), category, split)
            for category in categories
        }
        queries = tuple(
            _parse_query(
                entry,
                category,
                split,
                index,
                protocol.captions,
                labelled=split != "test" or self.labelled_test,
            )
            for category in categories
            for index, entry in enumerate(
                expect(read(_captions_file(category, split)), list, _captions_file(category, split))
            )
        )
        images = [image for gallery in galleries.values() for image in gallery]
        images += [image for query in queries for image in (query.reference_id, *query.targets)]
        files = {image: image_files(image) for image in images}
        if protocol.gallery == "union":
            galleries = {
                category: _union(
                    [query for query in queries if query.category == category], gallery
                )
                for category, gallery in galleries.items()
            }
        return Benchmark(galleries, queries, files, folders=("images",))


def _union(queries: Sequence[Query], gallery: tuple[ImageId, ...]) -> tuple[ImageId, ...]:
    """The queries' references and targets: in the original gallery's order, then what it lacks."""
    named = dict.fromkeys(
        image for query in queries for image in (query.reference_id, *query.targets)
    )
    known = [image for image in gallery if image in named]
    return tuple(dict.fromkeys([*known, *named]))


def _parse_query(
    entry: object, category: str, split: Split, index: int, rule: CaptionRule, *, labelled: bool
) -> Query:
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
    first, second = captions
    targets: tuple[ImageId, ...] = ()
    if labelled:
        targets = (ImageId(field(entry, "target", str, file, index)),)
    return Query(
        query_id=QueryId(f"{category}-{index:05d}"),
        category=category,
        reference_id=ImageId(reference),
        text=join_captions(first, second, rule),
        targets=targets,
        other_text=join_captions(first, second, "reversed") if rule == "both_orders" else "",
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
