"""The Shoes adapter: splits by the reference's list, files in their published folders."""

from typing import Any

import pytest

from cir_core import protocols
from cir_core.datasets.shoes import Shoes
from cir_core.errors import AnnotationError
from cir_core.types import Benchmark, Split

BOOT, CLOG, PUMP, FLAT = (
    "img_womens_boots_1.jpg",
    "img_womens_clogs_2.jpg",
    "img_womens_rain_boots_3.jpg",
    "img_womens_flats_4.jpg",
)


def files() -> dict[str, Any]:
    captions = [
        {"ImageName": target, "ReferenceImageName": reference, "RelativeCaption": text}
        for reference, target, text in (
            (BOOT, CLOG, "is open"),
            (PUMP, FLAT, "is flat"),
            (CLOG, BOOT, "is closed"),
        )
    ]
    return {
        "relative_captions_shoes.json": captions,
        "train_im_names.txt": [PUMP, FLAT],
        "eval_im_names.txt": [CLOG, BOOT, ""],
    }


def parse(content: dict[str, Any], split: Split = "val") -> Benchmark:
    return Shoes().parse(split, ("shoes",), content.__getitem__, protocols.SHOES[0])


def test_a_query_belongs_to_the_split_of_its_reference_and_keeps_its_number() -> None:
    assert [query.query_id for query in parse(files()).queries] == ["shoes-00000", "shoes-00002"]
    assert [query.query_id for query in parse(files(), "train").queries] == ["shoes-00001"]
    first = parse(files()).queries[0]
    assert (first.reference_id, first.targets, first.text) == (BOOT, (CLOG,), "is open")


def test_the_gallery_is_the_splits_list_in_its_order() -> None:
    assert parse(files()).galleries == {"shoes": (CLOG, BOOT)}


def test_pictures_are_looked_for_in_the_published_folders() -> None:
    places = dict(parse(files(), "train").files)
    assert {str(name): paths for name, paths in places.items()}[PUMP] == (
        f"womens_rain_boots/0/{PUMP}",
        f"womens_rain_boots/1/{PUMP}",
        f"attributedata/womens_rain_boots/0/{PUMP}",
        f"attributedata/womens_rain_boots/1/{PUMP}",
        f"images/{PUMP}",
    )


def test_all_three_files_are_declared_and_there_is_no_test_split() -> None:
    assert sorted(Shoes().annotation_files("val", ("shoes",))) == sorted(files())
    with pytest.raises(AnnotationError, match="no split test"):
        Shoes().annotation_files("test", ("shoes",))


def test_a_reference_of_no_split_and_a_missing_field_are_refused() -> None:
    content = files()
    content["relative_captions_shoes.json"][1]["ReferenceImageName"] = "img_x_1.jpg"
    with pytest.raises(AnnotationError, match="has a reference of no split"):
        parse(content)
    del content["relative_captions_shoes.json"][0]["RelativeCaption"]
    with pytest.raises(AnnotationError, match="RelativeCaption"):
        parse(content)
