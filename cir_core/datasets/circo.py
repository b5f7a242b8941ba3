"""CIRCO: queries on COCO 2017's unlabeled images, with several ground truths each.

``annotations/{val,test}.json`` and the gallery
``COCO2017_unlabeled/annotations/image_info_unlabeled2017.json``, with the pictures in
``COCO2017_unlabeled/unlabeled2017/``, as the dataset's own repository has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cir_core.datasets.adapter import ReadJson, expect, field
from cir_core.errors import AnnotationError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, ImageId, Query, QueryId, Split

CATEGORY = "circo"

_GALLERY = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
_PICTURES = "COCO2017_unlabeled/unlabeled2017"


@dataclass(frozen=True)
class CIRCO:
    """One gallery, in the order of COCO's file. An image's id is COCO's number as text; a query's
    first target is the one it was written for, the other ground truths follow."""

    categories: tuple[str, ...] = (CATEGORY,)

    def annotation_files(self, split: Split, categories: Sequence[str]) -> list[str]:
        return [_queries_file(split), _GALLERY]

    def parse(
        self, split: Split, categories: Sequence[str], read: ReadJson, protocol: Protocol
    ) -> Benchmark:
        """With the protocol's ``shared_concept`` the text is "concept, caption"."""
        file = _queries_file(split)
        files = _parse_gallery(read(_GALLERY))
        queries = tuple(
            _parse_query(entry, split, index, files, protocol)
            for index, entry in enumerate(expect(read(file), list, file))
        )
        if len({query.query_id for query in queries}) < len(queries):
            raise AnnotationError(
                "an annotation file repeats an 'id'",
                item=file,
                remedy="compare the file with the published annotations",
            )
        return Benchmark({CATEGORY: tuple(files)}, queries, files, folders=(_PICTURES,))


def _queries_file(split: Split) -> str:
    """Raises AnnotationError for ``train``: CIRCO is for evaluation only."""
    if split == "train":
        raise AnnotationError(
            "CIRCO has no training split", remedy="pass --split val or --split test"
        )
    return f"annotations/{split}.json"


def _parse_gallery(content: object) -> dict[ImageId, tuple[str, ...]]:
    images = field(content, "images", list, _GALLERY, 0)
    files: dict[ImageId, tuple[str, ...]] = {}
    for index, image in enumerate(images):
        number = _number(image, "id", _GALLERY, index)
        name = field(image, "file_name", str, _GALLERY, index)
        files[ImageId(str(number))] = (f"{_PICTURES}/{name}",)
    return files


def _parse_query(
    entry: object, split: Split, index: int, known: dict[ImageId, Any], protocol: Protocol
) -> Query:
    file = _queries_file(split)
    reference = ImageId(str(_number(entry, "reference_img_id", file, index)))
    targets = _parse_targets(entry, file, index) if split == "val" else ()
    for image in (reference, *targets):
        if image not in known:
            raise _wrong(file, index, "names an image that is not in the gallery", image)
    text = field(entry, "relative_caption", str, file, index)
    if protocol.shared_concept:
        text = f"{field(entry, 'shared_concept', str, file, index)}, {text}"
    return Query(
        query_id=QueryId(str(_number(entry, "id", file, index))),
        category=CATEGORY,
        reference_id=reference,
        text=text,
        targets=targets,
    )


def _parse_targets(entry: object, file: str, index: int) -> tuple[ImageId, ...]:
    first = _number(entry, "target_img_id", file, index)
    others = field(entry, "gt_img_ids", list, file, index)
    if not all(isinstance(image, int) and not isinstance(image, bool) for image in others):
        raise _wrong(file, index, "has a ground truth that is not a number", repr(others))
    if first not in others:
        raise _wrong(file, index, "does not count its target among the ground truths", str(first))
    return tuple(dict.fromkeys(ImageId(str(image)) for image in (first, *others)))


def _number(entry: object, name: str, file: str, index: int) -> int:
    number = field(entry, name, int, file, index)
    if isinstance(number, bool) or number < 0:  # a bool is an int to Python, not to JSON
        raise _wrong(file, index, f"has no usable {name!r}", repr(number))
    return int(number)


def _wrong(file: str, index: int, what: str, cause: str) -> AnnotationError:
    return AnnotationError(
        f"entry {index} of an annotation file {what}",
        item=file,
        cause=cause,
        remedy="compare the file with the published annotations",
    )
