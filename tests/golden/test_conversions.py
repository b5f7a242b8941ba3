"""What becomes of each kind of image file, pixel by pixel, as docs/images.md has it.

The files are made by hand or by Pillow's writers; the expected values are worked out by hand.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cir_core.errors import ImageProblem
from cir_core.layers.preprocess import prepare, to_rgb
from cir_core.picture_files import FORMATS
from storage.sources.images import decode_image, image_size

GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6
"""PNG's colour types, and the channels of each: 1, 3, 2, 4."""
CHANNELS = {GREY: 1, COLOUR: 3, GREY_ALPHA: 2, COLOUR_ALPHA: 4}

DEEP = [0x0000, 0x00FF, 0x0100, 0x12FF, 0x8000, 0xFFFF]
UPPER_BYTES = [0x00, 0x00, 0x01, 0x12, 0x80, 0xFF]


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def deep_png(colour_type: int, values: Sequence[int]) -> bytes:
    """A row of 16-bit pixels, every channel of a pixel alike."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    channels = [value for value in values for _ in range(CHANNELS[colour_type])]
    header = struct.pack(">IIBBBBB", len(values), 1, 16, colour_type, 0, 0, 0)
    row = b"\0" + struct.pack(f">{len(channels)}H", *channels)
    data = chunk(b"IDAT", zlib.compress(row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def pixels(content: bytes) -> list[list[int]]:
    """The first row of the picture, as it goes into the geometry."""
    image = to_rgb(decode_image(content, "a"))
    assert image.mode == "RGB"
    row: list[list[int]] = np.array(image)[0].tolist()
    return row


def greys(values: Sequence[int]) -> list[list[int]]:
    return [[value] * 3 for value in values]


# --- CMYK


@pytest.mark.parametrize(("file_format", "options"), [("TIFF", {}), ("JPEG", {"quality": 100})])
def test_cmyk_is_converted_without_a_profile(file_format: str, options: dict[str, int]) -> None:
    """(255 - C)(255 - K) / 255 and so on: 245 · 215 / 255 = 206.6, 55 · 215 / 255 = 46.4,
    225 · 215 / 255 = 189.7."""
    content = saved(Image.new("CMYK", (8, 8), (10, 200, 30, 40)), file_format, **options)
    assert decode_image(content, "a").mode == "CMYK"
    assert pixels(content) == [[207, 46, 190]] * 8


def test_a_cmyk_jpeg_holds_inverted_inks_as_adobe_writes_them() -> None:
    """No ink is 255 in such a file; read the other way round, white paper would be black."""
    content = saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG", quality=100)
    assert b"Adobe" in content
    assert pixels(content) == [[255, 255, 255]] * 8


# --- 16 bits


@pytest.mark.parametrize("colour_type", [GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA])
def test_of_sixteen_bits_in_a_png_the_upper_eight_are_kept(colour_type: int) -> None:
    assert pixels(deep_png(colour_type, DEEP)) == greys(UPPER_BYTES)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_of_sixteen_bits_of_grey_the_upper_eight_are_kept(file_format: str) -> None:
    content = saved(Image.fromarray(np.array([DEEP], dtype=np.uint16)), file_format)
    assert image_size(content, "a") == (6, 1)
    assert pixels(content) == greys(UPPER_BYTES)


def test_the_byte_order_of_a_tiff_does_not_matter() -> None:
    big = Image.frombytes("I;16B", (6, 1), np.array([DEEP], dtype=">u2").tobytes())
    content = saved(big, "TIFF")
    assert decode_image(content, "a").mode == "I;16B"
    assert pixels(content) == greys(UPPER_BYTES)


def test_eight_bits_stored_as_sixteen_are_the_same_picture() -> None:
    shallow = np.arange(256, dtype=np.uint8)[None]
    deep = Image.fromarray(shallow.astype(np.uint16) * 257)
    assert pixels(saved(deep, "PNG")) == pixels(saved(Image.fromarray(shallow), "PNG"))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_without_a_known_range_are_refused_from_the_header(kind: type) -> None:
    """0..1 or 0..255, who knows: clipped, the first would be a black picture."""
    content = saved(Image.fromarray(np.ones((4, 5), dtype=kind)), "TIFF")
    for read in (image_size, decode_image):
        with pytest.raises(ImageProblem, match="no known range") as caught:
            read(content, "a.tif")
        assert caught.value.kind == "unsupported"


# --- palettes, transparency, single bits


def palette(colours: Sequence[tuple[int, int, int]]) -> Image.Image:
    image = Image.new("P", (len(colours), 1))
    image.putpalette([channel for colour in colours for channel in colour])
    image.putdata(range(len(colours)))
    return image


COLOURS = [(9, 80, 200), (0, 0, 0), (250, 3, 1)]


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
@pytest.mark.parametrize("options", [{}, {"transparency": 0}])
def test_a_palette_gives_its_colours_transparent_or_not(
    file_format: str, options: dict[str, int]
) -> None:
    content = saved(palette(COLOURS), file_format, **options)
    assert pixels(content) == [list(colour) for colour in COLOURS]


def test_a_palette_with_an_alpha_for_each_entry_gives_its_colours() -> None:
    content = saved(palette(COLOURS), "PNG", transparency=bytes([0, 128, 255]))
    assert pixels(content) == [list(colour) for colour in COLOURS]


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_dropped(alpha: int) -> None:
    assert pixels(saved(Image.new("LA", (2, 1), (70, alpha)), "PNG")) == greys([70, 70])
    content = saved(Image.new("RGBA", (2, 1), (10, 20, 30, alpha)), "PNG")
    assert pixels(content) == [[10, 20, 30]] * 2


def test_single_bits_are_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(saved(image, "PNG")) == greys([0, 255])


# --- orientation, animation


def test_the_orientation_that_exif_tells_is_not_applied() -> None:
    """As in the published transform. Orientation 6 asks for a quarter turn, to 2 x 3 pixels."""
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(image, "PNG", exif=exif)
    assert decode_image(content, "a").getexif()[0x0112] == 6
    assert image_size(content, "a") == (3, 2)
    assert pixels(content) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("GIF", {}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_of_an_animation_or_of_pages_the_first_counts(
    file_format: str, options: dict[str, bool]
) -> None:
    first, second = Image.new("RGB", (3, 2), (200, 10, 10)), Image.new("RGB", (3, 2), (1, 1, 250))
    content = saved(first, file_format, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(content)) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    assert pixels(content) == [[200, 10, 10]] * 3


# --- extreme shapes


def test_a_single_pixel_fills_the_square() -> None:
    content = saved(Image.new("RGB", (1, 1), (9, 80, 200)), "PNG")
    assert (prepare(decode_image(content, "a"), 4) == (9, 80, 200)).all()


@pytest.mark.parametrize("width", [1, 20_000])
def test_a_line_becomes_a_line_between_black_bars(width: int) -> None:
    """One of 16,000 columns is nothing among 8."""
    height = 20_001 - width
    content = saved(Image.new("L", (width, height), 255), "PNG")
    square = prepare(decode_image(content, "a"), 8)
    assert square.shape == (8, 8, 3)
    assert square.max() == 0


def test_a_broader_line_is_seen() -> None:
    """1 x 100 padded to 79 x 100, shrunk to 8 x 10: one column of 79, half a column of 8 away from
    the two in the middle. There the bicubic filter weighs 9/16: 255 · 8/79 · 9/16 = 14.5."""
    content = saved(Image.new("L", (1, 100), 255), "PNG")
    square = prepare(decode_image(content, "a"), 8)
    assert square[0, :, 0].tolist() == square[7, :, 0].tolist()
    assert square[0, :, 0].tolist() == [0, 0, 0, 15, 15, 0, 0, 0]


# --- AVIF


@pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow is built without it")
@pytest.mark.parametrize(
    ("colour", "expected"),
    [((10, 200, 90), (10, 200, 90)), ((10, 200, 90, 0), (10, 200, 90)), (77, (77, 77, 77))],
)
def test_avif_is_seen_as_its_colours(
    colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    """An even colour, at full quality: what is left is the rounding of YCbCr, where half a step
    of Cb is 0.9 of blue and half a step of Y another 0.5."""
    mode = "L" if isinstance(colour, int) else "RGBA"[: len(colour)]
    content = saved(Image.new(mode, (8, 8), colour), "AVIF", quality=100, subsampling="4:4:4")
    assert np.abs(np.array(pixels(content)) - expected).max() <= 2


@pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow is built without it")
def test_of_an_animated_avif_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 255, 255), (0, 0, 0))]
    content = saved(frames[0], "AVIF", save_all=True, append_images=frames[1:], quality=100)
    assert np.array(pixels(content)).min() >= 254
