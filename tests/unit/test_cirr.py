"""CIRR's adapter: what it reads, what it makes of it, and each entry it refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from cir_core.datasets.cirr import CIRR
from cir_core.errors import AnnotationError
from cir_core.protocols import CIRR as PROTOCOLS
from cir_core.types import Benchmark, Split

PROTOCOL = PROTOCOLS[0]

CAPTIONS = "cirr/captions/cap.rc2.val.json"
GALLERY = "cirr/image_splits/split.rc2.val.json"
NAMES = [f"dev-{letter}-0-img0" for letter in "abcdefgh"]


def entry(pair: Any, reference: str, target: str) -> dict[str, Any]:
    return {
        "pairid": pair,
        "reference": reference,
        "target_hard": target,
        "target_soft": {target: 1.0},
        "caption": " Make it two dogs. ",
        "img_set": {"id": 1, "members": NAMES[:6], "reference_rank": 1, "target_rank": 2},
    }


def files(split: str = "val") -> dict[str, Any]:
    queries = [entry(7, NAMES[2], NAMES[0]), entry(12, NAMES[0], NAMES[5])]
    paths = {name: f"./dev/{name}.png" for name in reversed(NAMES)}
    return {
        f"cirr/captions/cap.rc2.{split}.json": queries,
        f"cirr/image_splits/split.rc2.{split}.json": paths,
    }


def parse(content: dict[str, Any], split: Split = "val") -> Benchmark:
    return CIRR().parse(split, ("cirr",), content.__getitem__, PROTOCOL)


def test_one_category_whose_gallery_is_the_split_file_in_its_order() -> None:
    benchmark = parse(files())
    assert CIRR().categories == ("cirr",)
    assert benchmark.galleries == {"cirr": tuple(reversed(NAMES))}


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "val"), ("test", "test1")])
def test_each_split_reads_exactly_the_files_it_declares(split: Split, name: str) -> None:
    content, read = files(name), []

    def recording(file: str) -> Any:
        read.append(file)
        return content[file]

    CIRR().parse(split, ("cirr",), recording, PROTOCOL)
    assert sorted(read) == sorted(CIRR().annotation_files(split, ("cirr",))) == sorted(content)


def test_query_keeps_pairid_caption_and_target() -> None:
    first, second = parse(files()).queries
    assert (first.query_id, second.query_id) == ("7", "12")
    assert first.category == "cirr"
    assert first.reference_id == NAMES[2]
    assert first.text == " Make it two dogs. "
    assert first.targets == (NAMES[0],)


def test_subset_is_the_members_in_file_order_without_the_reference() -> None:
    first, second = parse(files()).queries
    assert first.subset == (*NAMES[:2], *NAMES[3:6])
    assert second.subset == tuple(NAMES[1:6])


def test_test_split_has_no_targets_and_needs_none() -> None:
    content = files("test1")
    for query in content["cirr/captions/cap.rc2.test1.json"]:
        del query["target_hard"], query["target_soft"]
    assert [query.targets for query in parse(content, "test").queries] == [(), ()]


def test_every_image_may_lie_at_the_root_or_in_img_raw_as_png_or_jpg() -> None:
    content = files()
    content[GALLERY][NAMES[0]] = f"./train/34/{NAMES[0]}.png"
    benchmark = parse(content)
    assert benchmark.files[benchmark.galleries["cirr"][-1]] == (
        f"train/34/{NAMES[0]}.png",
        f"train/34/{NAMES[0]}.jpg",
        f"cirr/img_raw/train/34/{NAMES[0]}.png",
        f"cirr/img_raw/train/34/{NAMES[0]}.jpg",
    )
    assert set(benchmark.files) == set(NAMES)


def test_a_path_with_another_suffix_is_tried_as_it_stands_first() -> None:
    content = files()
    content[GALLERY][NAMES[7]] = "dev/x.jpeg"
    benchmark = parse(content)
    assert benchmark.files[benchmark.galleries["cirr"][0]][:3] == (
        "dev/x.jpeg",
        "dev/x.png",
        "dev/x.jpg",
    )


def _drop(field: str) -> Callable[[dict[str, Any]], None]:
    return lambda query: query.pop(field)


def _set(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda query: query.update({field: value})


def _members(members: Any) -> Callable[[dict[str, Any]], None]:
    return _set("img_set", {"id": 1, "members": members})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_drop("pairid"), "pairid"),
        (_set("pairid", "12"), "pairid"),
        (_set("pairid", True), "pairid"),
        (_set("pairid", 7), "repeats"),
        (_drop("reference"), "reference"),
        (_set("reference", 5), "reference"),
        (_drop("target_hard"), "target_hard"),
        (_set("target_hard", None), "target_hard"),
        (_drop("caption"), "caption"),
        (_set("caption", ["a"]), "caption"),
        (_drop("img_set"), "img_set"),
        (_set("img_set", NAMES[:6]), "img_set"),
        (_set("img_set", {"id": 1}), "members"),
        (_members("abcdef"), "members"),
        (_members([*NAMES[:5], 5]), "not a string"),
        (_members([*NAMES[:5], ["dev"]]), "not a string"),
        (_members(NAMES[:5]), "distinct"),
        (_members(NAMES[:7]), "distinct"),
        (_members([*NAMES[:5], NAMES[0]]), "distinct"),
        (_members(NAMES[2:8]), "without its reference"),
        (_members([*NAMES[:5], "dev-z"]), "dev-z"),
        (_set("reference", "dev-z"), "dev-z"),
        (_set("target_hard", "dev-z"), "dev-z"),
    ],
)
def test_a_wrong_entry_is_named_by_file_and_index(
    spoil: Callable[[dict[str, Any]], None], said: str
) -> None:
    content = files()
    spoil(content[CAPTIONS][1])
    with pytest.raises(AnnotationError, match="entry 1 ") as caught:
        parse(content)
    assert caught.value.item == CAPTIONS
    assert said in str(caught.value)


def test_an_entry_that_is_no_object_is_refused() -> None:
    content = files()
    content[CAPTIONS][0] = "a query"
    with pytest.raises(AnnotationError, match="entry 0 "):
        parse(content)


@pytest.mark.parametrize("path", [None, 3, "", "."])
def test_a_gallery_entry_without_a_path_is_refused(path: Any) -> None:
    content = files()
    content[GALLERY][NAMES[6]] = path
    with pytest.raises(AnnotationError, match="entry 1 ") as caught:
        parse(content)
    assert caught.value.item == GALLERY
    assert NAMES[6] in caught.value.cause


@pytest.mark.parametrize(("file", "wrong"), [(CAPTIONS, {}), (GALLERY, [])])
def test_a_file_of_another_json_type_is_refused(file: str, wrong: Any) -> None:
    with pytest.raises(AnnotationError) as caught:
        parse({**files(), file: wrong})
    assert caught.value.item == file
