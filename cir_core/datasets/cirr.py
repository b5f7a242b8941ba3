"""CIRR, release rc2: open-domain pictures, one gallery, and a subset of six around each query.

``cirr/captions/cap.rc2.{train,val,test1}.json`` and ``cirr/image_splits/split.rc2.{...}.json``,
which gives each image's path. The pictures lie beside ``cirr/`` (as the published code has them)
or in ``cirr/img_raw`` (as the dataset's own description has them), as ``.png`` or ``.jpg``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cir_core.datasets.adapter import ReadJson, expect, field
from cir_core.errors import AnnotationError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, ImageId, Query, QueryId, Split

CATEGORY = "cirr"

MEMBERS = 6
"""Of a subset, the reference among them: over another size, subset recall is another measure."""

_FOLDERS = tuple(
    f"{base}{name}" for base in ("", "cirr/img_raw/") for name in ("dev", "test1", "train")
)

_FILE_SPLIT: dict[Split, str] = {"train": "train", "val": "val", "test": "test1"}


@dataclass(frozen=True)
class CIRR:
    """The gallery of the split file, in its order; a query's subset without its reference."""

    categories: tuple[str, ...] = (CATEGORY,)

    def annotation_files(self, split: Split, categories: Sequence[str]) -> list[str]:
        return [_captions_file(split), _gallery_file(split)]

    def parse(
        self, split: Split, categories: Sequence[str], read: ReadJson, protocol: Protocol
    ) -> Benchmark:
        files = _parse_gallery(read(_gallery_file(split)), split)
        entries = expect(read(_captions_file(split)), list, _captions_file(split))
        queries = tuple(
            _parse_query(entry, split, index, files) for index, entry in enumerate(entries)
        )
        _require_distinct(queries, split)
        return Benchmark({CATEGORY: tuple(files)}, queries, files, folders=_FOLDERS)


def _captions_file(split: Split) -> str:
    return f"cirr/captions/cap.rc2.{_FILE_SPLIT[split]}.json"


def _gallery_file(split: Split) -> str:
    return f"cirr/image_splits/split.rc2.{_FILE_SPLIT[split]}.json"


def _parse_gallery(content: object, split: Split) -> dict[ImageId, tuple[str, ...]]:
    """Each image of the split, with the places where its file may lie."""
    file = _gallery_file(split)
    paths = expect(content, dict, file)
    for index, (name, path) in enumerate(paths.items()):
        if not isinstance(path, str) or not PurePosixPath(path).name:
            raise AnnotationError(
                f"entry {index} of a gallery file has no path",
                item=file,
                cause=f"{name!r}: {path!r}",
                remedy="compare the file with the published annotations",
            )
    return {ImageId(name): _places(path) for name, path in paths.items()}


def _places(path: str) -> tuple[str, ...]:
    published = PurePosixPath(path)  # drops the leading "./"
    names = (published, published.with_suffix(".png"), published.with_suffix(".jpg"))
    folders = (PurePosixPath(), PurePosixPath("cirr/img_raw"))
    return tuple(dict.fromkeys(str(folder / name) for folder in folders for name in names))


def _parse_query(entry: object, split: Split, index: int, known: dict[ImageId, Any]) -> Query:
    file = _captions_file(split)
    reference = ImageId(field(entry, "reference", str, file, index))
    targets: tuple[ImageId, ...] = ()
    if split != "test":
        targets = (ImageId(field(entry, "target_hard", str, file, index)),)
    members = _parse_members(entry, split, index)
    for image in (reference, *targets, *members):
        if image not in known:
            raise _wrong(split, index, "names an image that is not in the split", repr(image))
    if reference not in members:
        raise _wrong(split, index, "has a subset without its reference", repr(reference))
    return Query(
        query_id=_parse_id(entry, split, index),
        category=CATEGORY,
        reference_id=reference,
        text=field(entry, "caption", str, file, index),  # as is, by the published code
        targets=targets,
        subset=tuple(member for member in members if member != reference),
    )


def _parse_members(entry: object, split: Split, index: int) -> tuple[ImageId, ...]:
    file = _captions_file(split)
    image_set = field(entry, "img_set", dict, file, index)
    members = field(image_set, "members", list, file, index)
    if not all(isinstance(member, str) for member in members):
        raise _wrong(split, index, "has a subset member that is not a string", repr(members))
    if len(members) != MEMBERS or len(set(members)) != MEMBERS:
        raise _wrong(split, index, f"does not have {MEMBERS} distinct members", repr(members))
    return tuple(ImageId(member) for member in members)


def _parse_id(entry: object, split: Split, index: int) -> QueryId:
    pair = field(entry, "pairid", int, _captions_file(split), index)
    if isinstance(pair, bool):  # an int to Python, not to JSON
        raise _wrong(split, index, "has no usable 'pairid'", repr(pair))
    return QueryId(str(pair))


def _require_distinct(queries: Sequence[Query], split: Split) -> None:
    first: dict[QueryId, int] = {}
    for index, query in enumerate(queries):
        if query.query_id in first:
            cause = f"{query.query_id}, as in entry {first[query.query_id]}"
            raise _wrong(split, index, "repeats a 'pairid'", cause)
        first[query.query_id] = index


def _wrong(split: Split, index: int, what: str, cause: str) -> AnnotationError:
    return AnnotationError(
        f"entry {index} of an annotation file {what}",
        item=_captions_file(split),
        cause=cause,
        remedy="compare the file with the published annotations",
    )
