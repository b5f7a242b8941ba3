"""From picture to model input, against sizes worked out by hand and loops written out."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cir_core.layers import preprocess
from cir_core.layers.preprocess import (
    Fit,
    Preprocess,
    crop_centre,
    prepare,
    resize_short_side,
    square_pad,
    target_pad,
    to_rgb,
)
from cir_core.layers.vision import normalise

pytestmark = pytest.mark.numeric


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """No black pixel, so that bars can be told from content."""
    pixels = np.random.default_rng(seed).integers(1, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        ((100, 100), (100, 100)),
        ((124, 100), (124, 100)),  # 1.24: below the ratio
        ((125, 100), (125, 100)),  # at the ratio: bars of int((100 - 100) / 2) = 0
        ((126, 100), (126, 100)),  # wanted 100.8: a bar of int(0.4) = 0
        ((128, 100), (128, 102)),  # wanted 102.4: a bar of int(1.2) = 1 on either side
        ((100, 128), (102, 128)),
        ((101, 53), (101, 79)),  # wanted 80.8: int(13.9) = 13
        ((53, 101), (79, 101)),
        ((2000, 1), (2000, 1599)),  # wanted 1600: int(799.5) = 799
        ((1, 2000), (1599, 2000)),
        ((1, 1), (1, 1)),
        ((2, 1), (2, 1)),  # wanted 1.6: int(0.3) = 0
        ((4, 1), (4, 3)),  # wanted 3.2: int(1.1) = 1
    ],
)
def test_target_pad_sizes(size: tuple[int, int], padded: tuple[int, int]) -> None:
    assert target_pad(noise(*size)).size == padded


@given(st.integers(1, 90), st.integers(1, 90))
@settings(deadline=None)
def test_target_pad_adds_black_bars_on_both_sides_and_reaches_the_ratio(w: int, h: int) -> None:
    image = noise(w, h)
    padded = target_pad(image)
    left, top = (padded.width - w) // 2, (padded.height - h) // 2
    assert (padded.width - w, padded.height - h) == (2 * left, 2 * top)
    assert min(left, top) == 0
    pixels = np.array(padded)
    assert (pixels[top : top + h, left : left + w] == np.array(image)).all()
    assert np.count_nonzero(pixels) == w * h * 3
    short = min(padded.size)
    assert max(w, h) / 1.25 - short < 2  # both bars are rounded down, each by less than a pixel
    assert short <= max(min(w, h), max(w, h) / 1.25)


def test_target_pad_leaves_pictures_below_the_ratio_untouched() -> None:
    image = noise(60, 50)
    assert target_pad(image) is image


@pytest.mark.parametrize(
    ("size", "padded"),
    [((7, 7), (7, 7)), ((7, 3), (7, 7)), ((3, 8), (7, 8)), ((1, 2), (1, 2)), ((9, 1), (9, 9))],
)
def test_square_pad_is_square_up_to_one_pixel(
    size: tuple[int, int], padded: tuple[int, int]
) -> None:
    assert square_pad(noise(*size)).size == padded


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((100, 100), (384, 384)),
        ((101, 79), (490, 384)),  # 384 * 101 / 79 = 490.9, truncated
        ((79, 101), (384, 490)),
        ((333, 500), (384, 576)),  # 384 * 500 / 333 = 576.6
        ((1, 1), (384, 384)),
        ((3, 4), (384, 512)),
        ((1599, 2000), (384, 480)),
        ((770, 769), (384, 384)),  # 384.5, truncated
    ],
)
def test_resize_sizes(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert resize_short_side(noise(*size), 384).size == resized


def test_resize_to_the_same_size_resamples_nothing() -> None:
    image = noise(9, 8)
    assert resize_short_side(image, 8) is image


@pytest.mark.parametrize(
    ("width", "left"),
    [(8, 0), (9, 0), (10, 1), (11, 2), (12, 2), (13, 2), (15, 4)],  # 0.5 -> 0, 1.5 -> 2, 2.5 -> 2
)
def test_crop_rounds_half_a_pixel_to_even(width: int, left: int) -> None:
    image = noise(width, 8)
    wide = np.array(crop_centre(image, 8))
    tall = np.array(crop_centre(image.transpose(Image.Transpose.TRANSPOSE), 8))
    expected = np.array(image)[:, left : left + 8]
    assert (wide == expected).all()
    assert (tall == expected.transpose(1, 0, 2)).all()


def test_prepare_is_pad_then_resize_then_crop() -> None:
    image = noise(101, 53)
    padded = Image.new("RGB", (101, 79))
    padded.paste(image, (0, 13))
    resized = padded.resize((20, 16), Image.Resampling.BICUBIC)  # 16 * 101 / 79 = 20.5
    left = (20 - 16) // 2
    expected = np.array(resized)[:, left : left + 16]
    assert (prepare(image, 16) == expected).all()


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 5000))
@settings(deadline=None)
def test_large_pictures_are_resized_in_strips_to_the_same_bytes(
    w: int, h: int, size: int, strip: int
) -> None:
    image = noise(w, h)
    plain = crop_centre(resize_short_side(target_pad(image), size), size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cir_core.layers.preprocess.STRIP_PIXELS", strip)
        assert (prepare(image, size) == np.array(plain)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2000, 1), (1, 2000), (17, 16)])
def test_prepare_makes_a_square_of_every_shape(size: tuple[int, int]) -> None:
    pixels = prepare(noise(*size), 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable


def test_a_single_pixel_fills_the_square() -> None:
    assert (prepare(Image.new("RGB", (1, 1), (9, 80, 200)), 16) == (9, 80, 200)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_every_mode_is_converted(mode: str) -> None:
    source = noise(20, 20).convert("RGBA") if mode == "PA" else noise(20, 20)
    assert prepare(source.convert(mode), 16).shape == (16, 16, 3)


def test_sixteen_bit_greyscale_is_converted() -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20))
    assert deep.mode == "I;16"
    assert prepare(deep, 16).shape == (16, 16, 3)


def test_greyscale_before_or_after_the_geometry_is_the_same() -> None:
    """The published order converts last; see the module's docstring."""
    grey = noise(37, 23).convert("L")
    late = crop_centre(resize_short_side(target_pad(grey), 16), 16).convert("RGB")
    assert (prepare(grey, 16) == np.array(late)).all()


def test_alpha_is_dropped_and_not_blended() -> None:
    image = Image.new("RGBA", (5, 5), (10, 20, 30, 0))
    assert to_rgb(image).getpixel((2, 2)) == (10, 20, 30)


def test_a_palette_with_an_alpha_for_each_entry_keeps_its_colours_without_a_warning() -> None:
    image = noise(20, 20).convert("P")
    opaque = np.array(to_rgb(image))
    image.info["transparency"] = bytes(256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (np.array(to_rgb(image)) == opaque).all()


def test_normalise_by_a_loop() -> None:
    pixels = torch.randint(0, 256, (2, 3, 3, 3), dtype=torch.uint8)
    mean = (0.48145466, 0.4578275, 0.40821073)
    deviation = (0.26862954, 0.26130258, 0.27577711)
    result = normalise(pixels)
    assert result.shape == (2, 3, 3, 3)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    for image in range(2):
        for channel in range(3):
            for row in range(3):
                for column in range(3):
                    byte = int(pixels[image, row, column, channel])
                    expected = (byte / 255 - mean[channel]) / deviation[channel]
                    assert float(result[image, channel, row, column]) == pytest.approx(
                        expected, abs=1e-6
                    )


@pytest.mark.parametrize("size", [(60, 50), (50, 60), (32, 32), (100, 33), (20, 30)])
def test_crop_and_squash_are_those_of_clip_and_siglip(size: tuple[int, int]) -> None:
    """Where the middle is no half pixel: CLIP's own code rounds it to even, as ours; transformers
    down."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    image = noise(*size)
    clip = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_rescale=False,
        do_normalize=False,
    )  # fmt: skip
    siglip = SiglipImageProcessorPil(
        size={"height": 32, "width": 32}, do_rescale=False, do_normalize=False
    )
    fits: list[tuple[Any, Fit]] = [(clip, "crop"), (siglip, "squash")]
    for processor, fit in fits:
        (expected,) = processor(image, return_tensors="np")["pixel_values"]
        found = Preprocess(32, fit=fit).crop(image)
        assert (found == expected.transpose(1, 2, 0)).all()


def test_a_long_picture_is_cropped_without_being_resized_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = noise(3, 500)
    whole = Preprocess(32, fit="crop").crop(image)
    monkeypatch.setattr(preprocess, "STRIP_PIXELS", 1000)
    middle = Preprocess(32, fit="crop").crop(image)
    assert np.abs(whole.astype(int) - middle).max() <= 1


def test_only_what_is_new_adds_to_names() -> None:
    assert Preprocess(32).settings() == {"target_ratio": 1.25}
    squashed = Preprocess(32, fit="squash", resample="bilinear").settings()
    assert squashed == {"target_ratio": 1.25, "fit": "squash", "resample": "bilinear"}
    bilinear = Preprocess(32, fit="squash", resample="bilinear").crop(noise(40, 60))
    assert (bilinear != Preprocess(32, fit="squash").crop(noise(40, 60))).any()
