"""What an input names leads nowhere but below its own folder, whatever it names."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cir_core.datasets.registry import find_dataset
from storage.store import LocalStore
from tasks.stages.ingest import ingest

SECRET = "{secret}"
"""Stands for the path of a picture beside the data root, without its suffix."""

NAMES = [
    "../secret", "../../secret", "../../../secret", "x/../../../secret", "./../secret", "..", ".",
    "", "/", SECRET, f"//{SECRET}", f"file://{SECRET}", "C:\\secret", "..\\..\\secret", "a\0b",
    "../secret\0", "x" * 5_000, "x/" * 2_000, "~/secret", "%2e%2e/secret", "$HOME", "\x1b]0;x\x07",
]  # fmt: skip


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(content) if path.suffix == ".txt" else json.dumps(content)
    path.write_text(lines, encoding="utf-8")


def _fashion_iq(root: Path, names: Sequence[str]) -> None:
    entries = [{"candidate": name, "target": name, "captions": ["a", "b"]} for name in names]
    _write(root / "captions/cap.dress.val.json", entries)
    _write(root / "image_splits/split.dress.val.json", [*names])
    (root / "images").mkdir()


def _cirr(root: Path, names: Sequence[str]) -> None:
    paths = {f"image-{index}": f"./dev/{name}.png" for index, name in enumerate(names)}
    paths |= {f"path-{index}": f"{name}.png" for index, name in enumerate(names)}
    members = [*paths][:6]
    image_set = {"id": 1, "members": members}
    entry = {"pairid": 1, "reference": members[0], "target_hard": members[1], "caption": "red"}
    _write(root / "cirr/captions/cap.rc2.val.json", [entry | {"img_set": image_set}])
    _write(root / "cirr/image_splits/split.rc2.val.json", paths)
    (root / "dev").mkdir()


def _circo(root: Path, names: Sequence[str]) -> None:
    images = [{"id": index, "file_name": f"{name}.png"} for index, name in enumerate(names)]
    ids = {"id": 0, "reference_img_id": 0, "target_img_id": 1, "gt_img_ids": [1]}
    texts = {"relative_caption": "red", "shared_concept": "a dog"}
    _write(root / "annotations/val.json", [ids | texts])
    _write(
        root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": images}
    )
    (root / "COCO2017_unlabeled/unlabeled2017").mkdir()


def _shoes(root: Path, names: Sequence[str]) -> None:
    plain = [f"{name}.png" for name in names if "\n" not in name]
    named = [*plain, *(f"img_womens_boots_1.{name}" for name in plain)]
    entries = [
        {"ReferenceImageName": name, "ImageName": name, "RelativeCaption": "red"} for name in named
    ]
    _write(root / "relative_captions_shoes.json", entries)
    _write(root / "train_im_names.txt", [])
    _write(root / "eval_im_names.txt", named)
    (root / "images").mkdir()


BENCHMARKS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "fiq": _fashion_iq, "cirr": _cirr, "circo": _circo, "shoes": _shoes,
}  # fmt: skip


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture that no annotation should reach, on each way up from the folders of images."""
    for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (3, 5)).save(folder / "secret.png")
    return tmp_path / "a" / "secret.png"


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_no_annotation_reaches_a_picture_beside_the_data_root(secret: Path, benchmark: str) -> None:
    root, dataset = secret.parent / "b" / "root", find_dataset(benchmark)
    root.mkdir()
    BENCHMARKS[benchmark](root, [name.replace(SECRET, str(secret)[:-4]) for name in NAMES])
    ingested = ingest(
        LocalStore(secret.parents[1] / "store"),
        root,
        dataset,
        "val",
        dataset.adapter.categories[:1],
        dataset.protocols[0].name,
    ).ingested
    assert ingested.read("images").num_rows == 0
    kinds = [row["kind"] for row in ingested.read("problems").to_pylist()]
    of_images = [kind for kind in kinds if not kind.endswith("_unusable")]
    assert {"unsafe_path"} <= {*of_images} <= {"unsafe_path", "missing"}, "some do lead to one"
    assert len(of_images) == ingested.read("gallery").num_rows
