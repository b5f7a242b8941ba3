"""Fashion-IQ's adapter: what it reads, what it makes of it, and each entry it refuses."""

from dataclasses import replace
from typing import Any

import pytest

from cir_core.datasets.fashion_iq import FashionIQ
from cir_core.errors import AnnotationError
from cir_core.protocols import FASHION_IQ
from cir_core.types import Benchmark, Split

CAPTIONS = "captions/cap.dress.val.json"
GALLERY = "image_splits/split.dress.val.json"


def files(split: str = "val") -> dict[str, Any]:
    queries = [
        {"target": "B1", "candidate": "B0", "captions": ["is red.", "Has a belt?"]},
        {"target": "0007", "candidate": "B1", "captions": ["?", "is longer, "]},
    ]
    shirts = [{"target": "S1", "candidate": "0007", "captions": ["is blue", "is blue"]}]
    return {
        f"captions/cap.dress.{split}.json": queries,
        f"image_splits/split.dress.{split}.json": ["B1", "B0", "0007"],
        f"captions/cap.shirt.{split}.json": shirts,
        f"image_splits/split.shirt.{split}.json": ["S1", "0007"],
    }


def parse(content: dict[str, Any], split: Split = "val", **changes: Any) -> Benchmark:
    protocol = replace(FASHION_IQ[0], **changes)
    return FashionIQ().parse(split, ("dress", "shirt"), content.__getitem__, protocol)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_parse_reads_exactly_the_declared_files(split: Split) -> None:
    content, read = files(split), []

    def recording(file: str) -> Any:
        read.append(file)
        return content[file]

    FashionIQ().parse(split, ("dress", "shirt"), recording, FASHION_IQ[0])
    declared = FashionIQ().annotation_files(split, ("dress", "shirt"))
    assert sorted(read) == sorted(declared) == sorted(content)


def test_galleries_keep_the_order_of_the_split_file_and_the_ids_as_strings() -> None:
    assert parse(files()).galleries == {"dress": ("B1", "B0", "0007"), "shirt": ("S1", "0007")}


def test_an_id_listed_twice_is_one_image_at_its_first_place() -> None:
    content = files() | {GALLERY: ["B1", "B0", "B1", "0007", "B0"]}
    assert parse(content).galleries["dress"] == ("B1", "B0", "0007")


def test_candidate_becomes_the_reference_and_ids_count_within_the_category() -> None:
    queries = parse(files()).queries
    assert [query.query_id for query in queries] == ["dress-00000", "dress-00001", "shirt-00000"]
    assert [query.category for query in queries] == ["dress", "dress", "shirt"]
    assert [query.reference_id for query in queries] == ["B0", "B1", "0007"]
    assert [query.targets for query in queries] == [("B1",), ("0007",), ("S1",)]
    assert all(query.subset == () for query in queries)


def test_text_follows_the_caption_rule_of_the_protocol() -> None:
    published, reversed_rule = (
        [query.text for query in parse(files(), captions=captions).queries[:2]]
        for captions in ("published", "reversed")
    )
    assert published == ["Is red and Has a belt", " and is longer"]
    assert reversed_rule == ["Has a belt and is red", "Is longer and "]


def test_raw_captions_are_joined_as_they_are() -> None:
    content = files()
    texts = [query.text for query in parse(content, captions="raw").queries[:2]]
    told = [entry["captions"] for entry in content["captions/cap.dress.val.json"]]
    assert texts == [f"{first} and {second}" for first, second in told]


def test_the_union_gallery_holds_what_the_queries_name_in_the_split_files_order() -> None:
    content = files()
    content[GALLERY] = ["distractor", *content[GALLERY]]
    union = parse(content, gallery="union")
    assert union.galleries == {"dress": ("B1", "B0", "0007"), "shirt": ("S1", "0007")}
    assert union.files == parse(content).files  # one encoding serves both galleries
    content[GALLERY].remove("B0")
    assert parse(content, gallery="union").galleries["dress"] == ("B1", "0007", "B0")


def test_test_split_has_no_targets_and_needs_none() -> None:
    content = files("test")
    for query in content["captions/cap.dress.test.json"]:
        del query["target"]
    assert all(query.targets == () for query in parse(content, "test").queries)


def test_every_image_has_its_places_even_when_only_a_query_names_it() -> None:
    content = files()
    content[CAPTIONS][0] |= {"candidate": "B8", "target": "B9"}
    benchmark = parse(content)
    assert set(benchmark.files) == {"B0", "B1", "0007", "S1", "B8", "B9"}
    assert all(
        places == (f"images/{image}.jpg", f"images/{image}.png")
        for image, places in benchmark.files.items()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("candidate", None),
        ("candidate", 12),
        ("target", None),
        ("target", ["B1"]),
        ("captions", "is red"),
        ("captions", ["is red"]),
        ("captions", ["is red", "is long", "is new"]),
        ("captions", ["is red", None]),
    ],
)
def test_a_wrong_entry_is_named_by_file_and_index(field: str, value: Any) -> None:
    content = files()
    content[CAPTIONS][1][field] = value
    with pytest.raises(AnnotationError, match="entry 1 ") as caught:
        parse(content)
    assert caught.value.item == CAPTIONS


@pytest.mark.parametrize("field", ["candidate", "target", "captions"])
def test_a_missing_field_is_named(field: str) -> None:
    content = files()
    del content[CAPTIONS][0][field]
    with pytest.raises(AnnotationError, match=f"entry 0 .*'{field}'"):
        parse(content)


@pytest.mark.parametrize("wrong", ["a query", None, ["B0", "B1"]])
def test_an_entry_that_is_no_object_is_refused(wrong: Any) -> None:
    content = files()
    content[CAPTIONS][0] = wrong
    with pytest.raises(AnnotationError, match="entry 0 "):
        parse(content)


@pytest.mark.parametrize("wrong", [7, None, ["B0"]])
def test_a_gallery_entry_that_is_no_string_is_refused(wrong: Any) -> None:
    with pytest.raises(AnnotationError, match="entry 1 ") as caught:
        parse(files() | {GALLERY: ["B0", wrong]})
    assert caught.value.item == GALLERY


@pytest.mark.parametrize("file", [CAPTIONS, GALLERY])
def test_a_file_of_another_json_type_is_refused(file: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        parse(files() | {file: {"B0": 1}})
    assert caught.value.item == file
