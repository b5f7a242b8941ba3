"""Shoes: relative captions on the pictures of the attribute-discovery dataset.

``relative_captions_shoes.json``, ``train_im_names.txt`` and ``eval_im_names.txt`` in the data root;
the pictures in their published folders (``womens_boots/0/img_womens_boots_1.jpg``), or all in one
folder ``images``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cir_core.datasets.adapter import ReadJson, expect, field
from cir_core.errors import AnnotationError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, ImageId, Query, QueryId, Split

CATEGORY = "shoes"

_CAPTIONS = "relative_captions_shoes.json"
_GALLERIES: dict[str, str] = {"train": "train_im_names.txt", "val": "eval_im_names.txt"}


@dataclass(frozen=True)
class Shoes:
    """The gallery of the split's list, in its order. A query belongs to the split that lists its
    reference."""

    categories: tuple[str, ...] = (CATEGORY,)

    def annotation_files(self, split: Split, categories: Sequence[str]) -> list[str]:
        _require_split(split)
        return [_CAPTIONS, *_GALLERIES.values()]

    def parse(
        self, split: Split, categories: Sequence[str], read: ReadJson, protocol: Protocol
    ) -> Benchmark:
        _require_split(split)
        galleries = {name: _parse_gallery(read(file), file) for name, file in _GALLERIES.items()}
        gallery = galleries[split]
        split_of = {image: name for name, images in galleries.items() for image in images}
        queries = []
        for index, entry in enumerate(expect(read(_CAPTIONS), list, _CAPTIONS)):
            query = _parse_query(entry, index)
            if query.reference_id not in split_of:
                raise AnnotationError(
                    f"entry {index} of an annotation file has a reference of no split",
                    item=_CAPTIONS,
                    cause=query.reference_id,
                    remedy="compare the files with the published annotations",
                )
            if split_of[query.reference_id] == split:
                queries.append(query)
        images = dict.fromkeys([*gallery, *(target for one in queries for target in one.targets)])
        return Benchmark(
            galleries={CATEGORY: gallery},
            queries=tuple(queries),
            files={image: _places(image) for image in images},
            folders=(".", "attributedata", "images"),
        )


def _require_split(split: Split) -> None:
    """Raises AnnotationError for ``test``: the dataset has training and evaluation lists only."""
    if split not in _GALLERIES:
        raise AnnotationError(
            f"Shoes has no split {split}", remedy="pass --split val (the evaluation list) or train"
        )


def _parse_gallery(content: Any, file: str) -> tuple[ImageId, ...]:
    lines = expect(content, list, file)
    return tuple(dict.fromkeys(ImageId(line.strip()) for line in lines if line.strip()))


def _parse_query(entry: object, index: int) -> Query:
    """The id is the entry's place in the captions file, whatever the split."""
    return Query(
        query_id=QueryId(f"shoes-{index:05d}"),
        category=CATEGORY,
        reference_id=ImageId(field(entry, "ReferenceImageName", str, _CAPTIONS, index)),
        text=field(entry, "RelativeCaption", str, _CAPTIONS, index),
        targets=(ImageId(field(entry, "ImageName", str, _CAPTIONS, index)),),
    )


def _places(image: ImageId) -> tuple[str, ...]:
    flat = f"images/{image}"
    kind = re.match(r"img_(\w+?)_\d+\.", image)
    if kind is None:
        return (flat,)
    folders = ("", "attributedata/")
    published = [f"{folder}{kind[1]}/{part}/{image}" for folder in folders for part in ("0", "1")]
    return (*published, flat)
