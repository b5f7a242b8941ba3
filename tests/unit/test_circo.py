"""CIRCO's adapter: several ground truths, the shared concept, and each entry it refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from cir_core import protocols
from cir_core.datasets.circo import CIRCO
from cir_core.errors import AnnotationError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, Split

ALONE, CONCEPT = protocols.CIRCO
GALLERY = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"


def entry(number: int, reference: int, target: int, *others: int) -> dict[str, Any]:
    return {
        "id": number,
        "reference_img_id": reference,
        "target_img_id": target,
        "gt_img_ids": [*others, target],
        "relative_caption": "is at night",
        "shared_concept": "a lone bench",
    }


def files(split: Split = "val") -> dict[str, Any]:
    queries = [entry(0, 7, 30, 20), entry(1, 20, 7)]
    if split == "test":
        for query in queries:
            del query["target_img_id"], query["gt_img_ids"]
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (30, 7, 20)]
    return {f"annotations/{split}.json": queries, GALLERY: {"images": images}}


def parse(content: dict[str, Any], split: Split = "val", protocol: Protocol = ALONE) -> Benchmark:
    return CIRCO().parse(split, ("circo",), content.__getitem__, protocol)


@pytest.mark.parametrize("split", ["val", "test"])
def test_parse_reads_exactly_the_declared_files(split: Split) -> None:
    content = files(split)
    assert sorted(CIRCO().annotation_files(split, ("circo",))) == sorted(content)
    assert len(parse(content, split).queries) == 2


def test_ids_are_cocos_numbers_in_the_order_of_its_file() -> None:
    benchmark = parse(files())
    assert benchmark.galleries == {"circo": ("30", "7", "20")}
    assert benchmark.files["7"] == ("COCO2017_unlabeled/unlabeled2017/000000000007.jpg",)  # type: ignore[index]


def test_the_target_comes_first_and_counts_once() -> None:
    assert [query.targets for query in parse(files()).queries] == [("30", "20"), ("7",)]
    assert [query.targets for query in parse(files("test"), "test").queries] == [(), ()]


def test_the_shared_concept_is_the_protocols_choice() -> None:
    assert parse(files()).queries[0].text == "is at night"
    assert parse(files(), protocol=CONCEPT).queries[0].text == "a lone bench, is at night"


def test_there_is_no_training_split() -> None:
    with pytest.raises(AnnotationError, match="no training split"):
        CIRCO().annotation_files("train", ("circo",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda query: query.pop("relative_caption"), "relative_caption"),
        (lambda query: query.pop("target_img_id"), "target_img_id"),
        (lambda query: query.update(reference_img_id=99), "not in the gallery"),
        (lambda query: query.update(reference_img_id=True), "reference_img_id"),
        (lambda query: query.update(gt_img_ids=[20]), "its target among"),
        (lambda query: query.update(gt_img_ids=["30"]), "not a number"),
        (lambda query: query.update(id=1), "repeats an 'id'"),
    ],
)
def test_a_malformed_entry_is_refused(
    change: Callable[[dict[str, Any]], object], told: str
) -> None:
    content = files()
    change(content["annotations/val.json"][0])
    with pytest.raises(AnnotationError, match=told) as caught:
        parse(content)
    assert caught.value.item == "annotations/val.json"
