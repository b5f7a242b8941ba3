"""Each way in which an image file can be bad is one kind of ImageProblem, and never a crash."""

import errno
import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cir_core.errors import REMEDIES, ImageProblem
from storage.images import (
    MOST_PIXELS,
    MOST_SIDE,
    decode_image,
    find_image,
    image_size,
    read_image,
    sha256_of_bytes,
)

PAGE = b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>"


def encoded(file_format: str, *, width: int = 60, height: int = 40) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=file_format)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 64)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def problem_of_reading(root: Path, relative: str) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        read_image(root, relative)
    assert caught.value.item == relative
    assert caught.value.remedy == REMEDIES[caught.value.kind]
    return caught.value


def problem_of_decoding(content: bytes) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        decode_image(content, "images/a.jpg")
    assert caught.value.item == "images/a.jpg"
    return caught.value


# --- good ones, for contrast


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_good_file_is_read_measured_and_decoded(tmp_path: Path, file_format: str) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(file_format))  # the name does not matter
    content = read_image(tmp_path, "a.jpg")
    assert image_size(content, "a.jpg") == (60, 40) == decode_image(content, "a.jpg").size


def test_sha256_is_of_the_bytes() -> None:
    assert sha256_of_bytes(b"abc").startswith("ba7816bf8f01cfea")


def test_the_first_existing_place_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.png").touch()
    assert find_image(tmp_path, ("a.jpg", "b.png")) == "b.png"
    (tmp_path / "a.jpg").touch()
    assert find_image(tmp_path, ("a.jpg", "b.png")) == "a.jpg"


# --- missing, empty


@pytest.mark.parametrize("name", ["a.jpg", "nul\0byte.jpg", "x" * 300, "\ud800.jpg"])
def test_missing_names_all_the_places_that_were_tried(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageProblem) as caught:
        find_image(tmp_path, (name, "a.png"))
    assert caught.value.kind == "missing"
    assert "a.png" in caught.value.cause


def test_a_file_that_went_away_is_missing(tmp_path: Path) -> None:
    assert problem_of_reading(tmp_path, "a.jpg").kind == "missing"


def test_a_link_to_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert find_image(tmp_path, ("a.jpg",)) == "a.jpg"
    assert problem_of_reading(tmp_path, "a.jpg").kind == "missing"


def test_a_path_through_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    assert problem_of_reading(tmp_path, "images/a.jpg").kind == "missing"


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert problem_of_reading(tmp_path, "a.jpg").kind == "empty"


# --- unsafe paths


def test_a_folder_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    assert problem_of_reading(tmp_path, "a.jpg").kind == "unsafe_path"


def test_a_fifo_is_unsafe_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert problem_of_reading(tmp_path, "a.jpg").kind == "unsafe_path"


def test_a_link_out_of_the_root_is_unsafe(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded("PNG"))
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    assert problem_of_reading(root, "a.png").kind == "unsafe_path"
    assert problem_of_reading(root, "folder/outside.png").kind == "unsafe_path"
    assert problem_of_reading(root, "../outside.png").kind == "unsafe_path"
    assert problem_of_reading(root, str(outside)).kind == "unsafe_path"


def test_a_link_within_the_root_is_fine_and_so_is_a_root_behind_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(b"bytes")
    (root / "b.png").symlink_to("a.png")
    (tmp_path / "alias").symlink_to(root)
    assert read_image(root, "b.png") == b"bytes"
    assert read_image(tmp_path / "alias", "b.png") == b"bytes"


def test_a_loop_of_links_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    assert problem_of_reading(tmp_path, "a.jpg").kind == "unsafe_path"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "good").write_bytes(b"bytes")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        problem_of_reading(tmp_path, "folder")
        problem_of_reading(tmp_path, "empty")
        read_image(tmp_path, "good")
    assert len(os.listdir("/proc/self/fd")) == before


# --- denied, and what is not the image's fault


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_denied_by_the_file_system(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    (tmp_path / "a.jpg").chmod(0)
    assert problem_of_reading(tmp_path, "a.jpg").kind == "denied"


def _failing_open(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("storage.images.os.open", fail)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    _failing_open(monkeypatch, number)
    assert problem_of_reading(tmp_path, "a.jpg").kind == "denied"


def test_a_machine_out_of_descriptors_is_no_image_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    _failing_open(monkeypatch, errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        read_image(tmp_path, "a.jpg")


# --- bytes that are no picture, or half of one


@pytest.mark.parametrize(
    "content",
    [
        PAGE,
        b"\0" * 1000,
        b"\xff\xd8\xff",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    ],
    ids=["html", "zeros", "only a JPEG's first bytes", "postscript"],
)
def test_unreadable(content: bytes) -> None:
    assert problem_of_decoding(content).kind == "unreadable"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_half_a_file_is_truncated(file_format: str) -> None:
    content = encoded(file_format)
    assert problem_of_decoding(content[: len(content) // 2]).kind == "truncated"


def test_half_a_webp_is_refused_though_pillow_does_not_say_why() -> None:
    content = encoded("WEBP")
    assert problem_of_decoding(content[: len(content) // 2]).kind == "unreadable"


@pytest.mark.parametrize(("file_format", "kept"), [("JPEG", 60), ("PNG", 20)])
def test_a_file_that_ends_within_its_header_is_truncated(file_format: str, kept: int) -> None:
    assert problem_of_decoding(encoded(file_format)[:kept]).kind == "truncated"


def test_a_jpeg_with_a_flipped_bit_decodes_and_has_another_hash() -> None:
    """Which is why the bytes are hashed."""
    content = encoded("JPEG")
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    assert decode_image(flipped, "a.jpg").size == (60, 40)
    assert sha256_of_bytes(flipped) != sha256_of_bytes(content)


def test_flipped_bytes_give_a_picture_or_a_problem() -> None:
    rng = np.random.default_rng(0)
    for file_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        good = np.frombuffer(encoded(file_format), dtype=np.uint8)
        for _ in range(60):
            bad = good.copy()
            places = rng.integers(0, rng.choice([64, len(bad)]), size=3)
            bad[places] = rng.integers(0, 256, size=3)
            assert problem_of(bad.tobytes()) in (None, "unreadable", "truncated", "too_large")


def problem_of(content: bytes) -> str | None:
    """What is wrong with an image's bytes, if anything."""
    try:
        decode_image(content, "a")
    except ImageProblem as problem:
        return problem.kind
    return None


# --- too large


@pytest.mark.parametrize(
    ("width", "height"),
    [(20_000, 20_000), (10_000, 10_000), (1, MOST_SIDE + 1), (MOST_PIXELS // 5_000 + 1, 5_000)],
)
def test_too_large_is_told_from_the_header_without_taking_memory(width: int, height: int) -> None:
    content = png_header(width, height)
    tracemalloc.start()
    try:
        assert problem_of_decoding(content).kind == "too_large"
        with pytest.raises(ImageProblem) as caught:
            image_size(content, "a.png")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.kind == "too_large"


def test_the_limits_themselves_are_allowed() -> None:
    assert image_size(png_header(MOST_PIXELS // 5_000, 5_000), "a") == (10_000, 5_000)
    assert image_size(png_header(1, MOST_SIDE), "a") == (1, MOST_SIDE)
