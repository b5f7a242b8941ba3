"""Pictures of a page: what is within it, what lies beside it, and what is not shown."""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from storage.products import SUMS
from storage.sources.images import decode_image
from tasks.results.album import THUMBNAIL, Album, Picture

SIZES = {"photo": (300, 400), "copy": (300, 400), "wide": (900, 90), "small": (40, 30)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """JPEG files of these sizes, of which two are the same; and a text."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        pixels = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    (folder / "copy.jpg").write_bytes((folder / "photo.jpg").read_bytes())
    (folder / "text.jpg").write_text("no picture")
    return folder


def album_of(root: Path) -> Album:
    rows = [
        {"image_id": path.stem, "path": path.name, "sha256": sha256(path.read_bytes())}
        for path in sorted(root.iterdir())
    ]
    return Album(pa.Table.from_pylist(rows), root)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def drawn(
    root: Path, names: list[str], *, inline: int = 1_000_000, files: int | None = None
) -> tuple[Mapping[str, Picture], Path]:
    folder = root.parent / "pictures"
    folder.mkdir()
    pictures = album_of(root).pictures(names, folder, inline=inline, files=files)
    return dict(zip(names, pictures, strict=True)), folder


def size_of(content: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(content)).size


def test_a_picture_is_small_within_the_page_and_larger_beside_it(root: Path) -> None:
    pictures, folder = drawn(root, [*SIZES])
    sides = {name: size_of(base64.b64decode(picture.inline)) for name, picture in pictures.items()}
    assert sides == {"photo": (84, 112), "copy": (84, 112), "wide": (112, 11), "small": (40, 30)}
    assert max(max(side) for side in sides.values()) == THUMBNAIL
    larger = {
        name: one.file and size_of((folder / one.file).read_bytes())
        for name, one in pictures.items()
    }
    assert larger == {"photo": (192, 256), "copy": (192, 256), "wide": (256, 26), "small": ""}
    assert pictures["photo"].file == pictures["copy"].file
    files = {path.name: path.read_bytes() for path in folder.glob("*.jpg")}
    sums = {f"{sha256(content)}  {name}" for name, content in files.items()}
    assert {*(folder / SUMS).read_text().splitlines()} == sums


def test_what_the_page_has_no_room_for_lies_beside_it(root: Path) -> None:
    everything, _ = drawn(root, ["photo", "wide", "small"])
    first = len(everything["photo"].inline)
    (root.parent / "pictures").rename(root.parent / "before")
    pictures, folder = drawn(root, ["photo", "wide", "small"], inline=first)
    assert pictures["photo"] == everything["photo"]
    assert [pictures[name].inline for name in ("wide", "small")] == ["", ""]
    assert size_of((folder / pictures["small"].file).read_bytes()) == (40, 30)


def test_no_more_files_than_asked_for(root: Path) -> None:
    pictures, folder = drawn(root, ["photo", "wide", "copy"], inline=0, files=1)
    assert pictures["wide"] == Picture()
    assert pictures["photo"].file == pictures["copy"].file != ""
    assert len([*folder.glob("*.jpg")]) == 1


def test_no_folder_is_filled_when_none_is_asked_for(root: Path) -> None:
    _, folder = drawn(root, ["photo"], files=0)
    assert [*folder.iterdir()] == []


def test_what_is_not_the_ingested_picture_is_not_shown(root: Path) -> None:
    album = album_of(root)
    (root / "photo.jpg").write_bytes((root / "wide.jpg").read_bytes())
    (root / "wide.jpg").unlink()
    folder = root.parent / "pictures"
    folder.mkdir()
    shown = [*album.pictures(["photo", "wide", "text", "nobody", "small"], folder)]
    assert [bool(picture.inline) for picture in shown] == [False, False, False, False, True]


def test_a_jpeg_is_decoded_at_a_fraction_that_is_no_smaller_than_asked(root: Path) -> None:
    content = (root / "photo.jpg").read_bytes()
    sides = (400, 256, 200, 101, 100, 49, 1)
    sizes = [decode_image(content, "photo", side=side).size for side in sides]
    whole, half, quarter, eighth = (300, 400), (150, 200), (75, 100), (38, 50)
    assert sizes == [whole, whole, half, half, quarter, eighth, eighth]
