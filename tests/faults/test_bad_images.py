"""Each way in which an image file can be bad is one kind of ImageProblem, and never a crash."""

import errno
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cir_core.errors import REMEDIES, ImageProblem
from cir_core.layers import smart_resize
from cir_core.picture_files import FORMATS
from storage.sources import images
from storage.sources.images import (
    MOST_BYTES,
    MOST_PIXELS,
    MOST_SIDE,
    Folders,
    decode_image,
    image_size,
    read_image,
    sha256_of_bytes,
)
from storage.sources.metadata import without_metadata

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


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_good_file_is_read_measured_and_decoded(tmp_path: Path, file_format: str) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(file_format))  # the name does not matter
    content = read_image(tmp_path, "a.jpg")
    assert image_size(content, "a.jpg") == (60, 40) == decode_image(content, "a.jpg").size


def test_whatever_a_decoder_makes_of_damaged_bytes_is_the_pictures_problem() -> None:
    """Strips whose place is a text: Pillow raises a TypeError."""
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "TIFF")
    strips, text = struct.pack("<HH", 273, 4), struct.pack("<HH", 273, 2)
    assert strips in file.getvalue()
    content = file.getvalue().replace(strips, text)
    assert image_size(content, "a.tif") == (40, 40)
    with pytest.raises(ImageProblem, match="cannot be decoded"):
        decode_image(content, "a.tif")


def test_sha256_is_of_the_bytes() -> None:
    assert sha256_of_bytes(b"abc").startswith("ba7816bf8f01cfea")


def test_the_first_existing_place_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.png").touch()
    assert Folders(tmp_path).find(("a.jpg", "b.png")) == "b.png"
    (tmp_path / "a.jpg").touch()
    assert Folders(tmp_path).find(("a.jpg", "b.png")) == "a.jpg"


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").touch()
    (tmp_path / "images" / "b.jpg").symlink_to("gone.jpg")
    folders = Folders(tmp_path)
    assert folders.has("images/a.jpg")
    monkeypatch.setattr("storage.sources.images.os.listdir", None)  # a second call would raise
    assert folders.has("images/b.jpg")
    assert not folders.has("images/c.jpg")
    assert folders.names("images") == {"a.jpg", "b.jpg"}


def test_a_folder_that_may_be_entered_and_not_listed_is_asked_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").touch()

    def refuse(_path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("storage.sources.images.os.listdir", refuse)
    folders = Folders(tmp_path)
    assert folders.has("a.jpg")
    assert not folders.has("b.jpg")
    assert folders.names(".") == frozenset()


# --- missing, empty


@pytest.mark.parametrize(
    "name", ["a.jpg", "nul\0byte.jpg", "x" * 300, "\ud800.jpg", "nul\0byte/a.jpg", "x/" * 3000]
)
def test_missing_names_all_the_places_that_were_tried(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageProblem) as caught:
        Folders(tmp_path).find((name, "a.png"))
    assert caught.value.kind == "missing"
    assert "a.png" in caught.value.cause


def test_a_file_that_went_away_is_missing(tmp_path: Path) -> None:
    assert problem_of_reading(tmp_path, "a.jpg").kind == "missing"


def test_a_link_to_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert Folders(tmp_path).find(("a.jpg",)) == "a.jpg"
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


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another disk, beside a data root with a folder ``photos/deep``."""
    (tmp_path / "root" / "photos" / "deep").mkdir(parents=True)
    folder = tmp_path / "disk" / "sub"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"bytes")
    return folder.parent


def problem_of_link(folders: Folders, relative: str) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        folders.read(relative)
    assert caught.value.kind == "unsafe_path"
    return caught.value


@pytest.mark.parametrize("link", ["photos", "other", "photos/disk"])
def test_a_folders_link_at_the_top_is_its_owners_choice(elsewhere: Path, link: str) -> None:
    root = elsewhere.parent / "root"
    if link == "photos":
        shutil.rmtree(root / "photos")
    (root / link).symlink_to(elsewhere)
    assert Folders(root, ["photos"]).read(f"{link}/sub/a.png") == b"bytes"


@pytest.mark.parametrize("link", ["a.png", "photos/a.png"])
def test_a_files_link_at_the_top_is_too(elsewhere: Path, link: str) -> None:
    root = elsewhere.parent / "root"
    (root / link).symlink_to(elsewhere / "sub" / "a.png")
    assert Folders(root, ["photos"]).read(link) == b"bytes"


def test_a_link_out_of_the_root_further_down_is_unsafe_and_told_with_its_target(
    elsewhere: Path,
) -> None:
    root = elsewhere.parent / "root"
    picture = elsewhere / "sub" / "a.png"
    (root / "photos" / "deep" / "a.png").symlink_to(picture)
    (root / "photos" / "deep" / "disk").symlink_to(elsewhere)
    folders = Folders(root, ["photos"])
    problem = problem_of_link(folders, "photos/deep/a.png")
    assert (problem.item, problem.cause) == ("photos/deep/a.png", f"to {picture}")
    problem = problem_of_link(folders, "photos/deep/disk/sub/a.png")
    assert (problem.item, problem.cause) == ("photos/deep/disk", f"to {elsewhere}")
    assert "photos/deep/disk: to /" in problem.row("x")["message"]


def test_what_a_link_at_the_top_leads_to_may_be_linked_below_it_and_nothing_else(
    elsewhere: Path,
) -> None:
    root = elsewhere.parent / "root"
    (elsewhere.parent / "third").write_bytes(b"bytes")
    (root / "disk").symlink_to(elsewhere)
    (elsewhere / "sub" / "within.png").symlink_to("a.png")
    (elsewhere / "sub" / "out.png").symlink_to(elsewhere.parent / "third")
    (root / "photos" / "deep" / "there.png").symlink_to(elsewhere / "sub" / "a.png")
    folders = Folders(root, ["photos"])
    assert folders.read("disk/sub/within.png") == b"bytes"
    assert problem_of_link(folders, "disk/sub/out.png").item == "disk/sub/out.png"
    assert problem_of_link(folders, "photos/deep/there.png").item == "photos/deep/there.png"


@pytest.mark.parametrize("path", ["../disk/sub/a.png", "photos/../../disk/sub/a.png"])
def test_a_path_that_climbs_out_is_unsafe(elsewhere: Path, path: str) -> None:
    root = elsewhere.parent / "root"
    assert problem_of_link(Folders(root), path).item == path
    absolute = str(elsewhere / "sub" / "a.png")
    assert problem_of_link(Folders(root), absolute).item == absolute


def test_a_link_within_the_root_is_fine_and_so_is_a_root_behind_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "x" / "y").mkdir(parents=True)
    (root / "a.png").write_bytes(b"bytes")
    (root / "x" / "y" / "b.png").symlink_to("../../a.png")
    (tmp_path / "alias").symlink_to(root)
    assert Folders(root).read("x/y/b.png") == b"bytes"
    assert Folders(tmp_path / "alias").read("x/y/b.png") == b"bytes"


def test_a_loop_of_links_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    assert problem_of_reading(tmp_path, "a.jpg").kind == "unsafe_path"
    assert problem_of_link(Folders(tmp_path), "a.jpg").item == "a.jpg"


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

    monkeypatch.setattr("storage.sources.images.os.open", fail)


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


# --- a disk that fails


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_file_that_cannot_be_opened_for_the_disks_sake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    _failing_open(monkeypatch, number)
    problem = problem_of_reading(tmp_path, "a.jpg")
    assert problem.kind == "io_error"
    assert os.strerror(number) in problem.cause


@pytest.mark.parametrize("call", ["os.fstat", "os.fdopen"])
def test_a_disk_that_fails_at_any_other_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(f"storage.sources.images.{call}", fail)
        assert problem_of_reading(tmp_path, "a.jpg").kind == "io_error"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_disk_that_fails_where_a_link_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    folders = Folders(tmp_path)

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("storage.sources.images.os.path.realpath", fail)
    with pytest.raises(ImageProblem) as caught:
        folders.read("a.jpg")
    assert caught.value.kind == "io_error"


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


@pytest.mark.parametrize(
    ("content", "likeness"),
    [
        (PAGE, "a web page"),
        (b"\r\n <HTML lang=en>", "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a Git LFS pointer",
        ),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "an AVIF picture that is damaged"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b'<?xml version="1.0"?><svg/>', "an SVG drawing"),
        (b"%PDF-1.7", "a PDF document"),
        (b"8BPS\0\1", "a Photoshop file"),
    ],
)
def test_what_often_lies_in_a_pictures_place_is_named(content: bytes, likeness: str) -> None:
    problem = problem_of_decoding(content)
    assert problem.kind == "unreadable"
    assert likeness in problem.cause


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_half_a_file_is_truncated(file_format: str) -> None:
    content = encoded(file_format)
    assert problem_of_decoding(content[: len(content) // 2]).kind == "truncated"


def test_half_a_webp_is_refused_though_pillow_does_not_say_why() -> None:
    content = encoded("WEBP")
    assert problem_of_decoding(content[: len(content) // 2]).kind == "unreadable"


@pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow is built without it")
@pytest.mark.parametrize("lost", [1, 5, 100, 1000])
def test_an_avif_that_ends_early_is_refused(lost: int) -> None:
    assert problem_of(encoded("AVIF")[:-lost]) in ("truncated", "unreadable")


@pytest.mark.parametrize(("file_format", "kept"), [("JPEG", 60), ("PNG", 20)])
def test_a_file_that_ends_within_its_header_is_truncated(file_format: str, kept: int) -> None:
    assert problem_of_decoding(encoded(file_format)[:kept]).kind == "truncated"


def test_a_jpeg_without_its_last_two_bytes_is_truncated() -> None:
    """Pillow's decoder waits for the end mark, mostly: 332 of 341 photos that lost theirs were
    refused, the other 9 gave the same pixels."""
    assert problem_of_decoding(encoded("JPEG")[:-2]).kind == "truncated"


@pytest.mark.parametrize(("file_format", "lost"), [("PNG", 2), ("PNG", 12), ("GIF", 2)])
def test_a_file_that_lost_only_what_follows_its_pixels_is_the_same_picture(
    file_format: str, lost: int
) -> None:
    """The end mark of a PNG takes 12 bytes. The hash is another one."""
    content = encoded(file_format)
    short = decode_image(content[:-lost], "a")
    assert np.array_equal(np.array(short), np.array(decode_image(content, "a")))


def test_a_png_without_the_end_of_its_pixels_is_truncated() -> None:
    """16 bytes are the end mark and a checksum, 4 a second one."""
    assert problem_of_decoding(encoded("PNG")[:-40]).kind == "truncated"


def test_a_jpeg_with_a_flipped_bit_decodes_and_has_another_hash() -> None:
    """Which is why the bytes are hashed."""
    content = encoded("JPEG")
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    assert decode_image(flipped, "a.jpg").size == (60, 40)
    assert sha256_of_bytes(flipped) != sha256_of_bytes(content)


def test_flipped_bytes_give_a_picture_or_a_problem() -> None:
    rng = np.random.default_rng(0)
    for file_format in FORMATS:
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


# --- metadata, which nobody reads


PROFILE, TEXT = bytes(2 << 20), "x" * (2 << 20)
"""Above what Pillow unpacks of a PNG, 1 MiB."""


def told_beside(file_format: str, **metadata: Any) -> bytes:
    """A picture of noise with metadata."""
    picture = Image.open(io.BytesIO(encoded("PNG")))
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **metadata)
    return buffer.getvalue()


def png_text(name: str, text: str, *, packed: bool) -> PngImagePlugin.PngInfo:
    told = PngImagePlugin.PngInfo()
    told.add_itxt(name, text, zip=packed)
    told.add_text(name, text, zip=packed)
    return told


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_large_profile_hides_no_pixels(file_format: str) -> None:
    if file_format not in FORMATS:
        pytest.skip("Pillow is built without it")
    content = told_beside(file_format, icc_profile=PROFILE)
    assert image_size(content, "a") == (60, 40)
    plain = decode_image(told_beside(file_format), "a")
    assert np.array_equal(np.array(decode_image(content, "a")), np.array(plain))


@pytest.mark.parametrize("packed", [True, False])
def test_large_texts_hide_no_pixels(packed: bool) -> None:
    content = told_beside("PNG", pnginfo=png_text("XML:com.adobe.xmp", TEXT, packed=packed))
    assert image_size(content, "a") == (60, 40)
    assert np.array_equal(
        np.array(decode_image(content, "a")), np.array(decode_image(encoded("PNG"), "a"))
    )


def test_only_metadata_is_left_out_of_a_png() -> None:
    """A palette with transparency and a resolution keeps both, to the byte."""
    image = Image.open(io.BytesIO(encoded("PNG"))).convert("P")
    plain, told = io.BytesIO(), io.BytesIO()
    image.save(plain, "PNG", transparency=3, dpi=(72, 72))
    image.save(
        told, "PNG", transparency=3, dpi=(72, 72), icc_profile=PROFILE,
        pnginfo=png_text("Comment", "short", packed=True),
    )  # fmt: skip
    assert told.getvalue() != plain.getvalue() == without_metadata(told.getvalue())
    assert without_metadata(plain.getvalue()) is plain.getvalue()


@pytest.mark.parametrize("kept", [0, 5, 8, 10, 20, 40, 60, 200])
def test_a_broken_png_is_left_for_the_decoder_to_judge(kept: int) -> None:
    whole = told_beside("PNG", icc_profile=b"profile")
    assert problem_of(whole[:kept]) in ("truncated", "unreadable")


def test_broken_metadata_hides_no_pixels() -> None:
    content = told_beside("PNG", icc_profile=b"profile")
    place = content.index(b"iCCP") + 12
    assert problem_of(content[:place] + b"\xff" * 4 + content[place + 4 :]) is None


PACKED = """
import resource, sys
from storage.sources.images import decode_image, image_size, read_image
from pathlib import Path
content = read_image(Path(sys.argv[1]), "packed.png")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert image_size(content, "packed.png") == decode_image(content, "packed.png").size == (60, 40)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_metadata_that_unpacks_to_much_takes_no_memory(tmp_path: Path) -> None:
    """70 MB in 70 KB: text after text of a size that Pillow would unpack."""
    told = PngImagePlugin.PngInfo()
    for number in range(70):
        told.add_text(f"text {number}", "x" * 1_000_000, zip=True)
    (tmp_path / "packed.png").write_bytes(told_beside("PNG", pnginfo=told))
    assert _printed(PACKED, tmp_path) < 20 * 1024  # KiB


BOMB = """
import resource, sys
from cir_core.errors import ImageProblem
from storage.sources.images import decode_image, image_size, read_image
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for call in (image_size, decode_image):
    try:
        call(read_image(Path(sys.argv[1]), "bomb.png"), "bomb.png")
    except ImageProblem as problem:
        assert problem.kind == "too_large", problem
    else:
        raise AssertionError("the bomb was not refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_real_bomb_is_refused_at_the_cost_of_its_file(tmp_path: Path) -> None:
    """100 megapixels of black in some 100 KB: decoded, it would take 300 MB."""
    Image.new("RGB", (10_000, 10_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 500_000
    assert _printed(BOMB, tmp_path) < 100 * 1024  # KiB


def _printed(code: str, folder: Path) -> int:
    """The number that a process of its own prints."""
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(ended.stdout)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(MOST_BYTES + 1)  # takes no space on the disk
    tracemalloc.start()
    try:
        assert problem_of_reading(tmp_path, "a.jpg").kind == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_every_kind_of_problem_has_a_remedy_and_only_these() -> None:
    files = (Path(str(one.__file__)).read_text() for one in (images, smart_resize))
    told = {kind for text in files for kind in re.findall(r'ImageProblem\(\s*"(\w+)"', text)}
    assert {*told, "truncated"} == REMEDIES.keys()
