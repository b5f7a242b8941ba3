"""Pictures to square crops, as published: target-pad, bicubic resize, centre crop; or as other
models were trained, without padding, or squashed.

Follows torchvision's geometry (rounding included) with Pillow alone, so that processes that only
decode need not import torch; the model scales the bytes (``normalise``). The published
transform converts to RGB last; we convert first. For RGB and 8-bit greyscale files, all that the
benchmarks hold, both orders give the same pixels; for palettes and the like ours is the sane one.
The orientation that EXIF may tell is not applied, as published.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

CHANNELS = 3
"""Red, green, blue."""

TARGET_RATIO = 1.25
"""Longer pictures are padded until their sides are at most 1.25 : 1 (published value)."""

SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's names for grey values up to 65,535: in either byte order, or within 32 bits (PPM)."""

BICUBIC = Image.Resampling.BICUBIC

Fit = Literal["pad", "crop", "squash"]
"""How a picture becomes square: padded towards it and its middle cut out; its middle cut out; or
both sides resized alike, whatever the picture's shape."""

Resample = Literal["bicubic", "bilinear"]

_FILTERS = {"bicubic": BICUBIC, "bilinear": Image.Resampling.BILINEAR}

STRIP_PIXELS = 16_000_000
"""64 MB as Pillow keeps them. A line of 1 x 20,000, padded at once, would take 1.3 GB."""


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """What becomes of a picture: a square of ``size`` pixels, fit into it and resampled as said,
    what is padded to ``target_ratio`` at most; its bytes, as values from 0 to 1, are scaled by
    ``mean`` and ``std``.
    """

    size: int
    target_ratio: float = TARGET_RATIO
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    fit: Fit = "pad"
    resample: Resample = "bicubic"

    @property
    def told(self) -> str:
        """Its size, in words."""
        return f"{self.size} px"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what becomes of any picture."""
        return self.size, self.size, CHANNELS

    def crop(self, image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """As bytes in RGB order."""
        return prepare(image, self.size, self.target_ratio, fit=self.fit, resample=self.resample)

    def settings(self) -> dict[str, Any]:
        """What names results beside the model, which knows its size; all but the ratio only where
        it is not as it was when names were first given."""
        scaling: dict[str, Any] = {"mean": self.mean, "std": self.std}
        named = {} if scaling == {"mean": CLIP_MEAN, "std": CLIP_STD} else scaling
        if self.fit != "pad":
            named |= {"fit": self.fit}
        if self.resample != "bicubic":
            named |= {"resample": self.resample}
        return {"target_ratio": self.target_ratio, **named}


def prepare(
    image: Image.Image,
    size: int,
    ratio: float = TARGET_RATIO,
    *,
    fit: Fit = "pad",
    resample: Resample = "bicubic",
) -> UInt8[np.ndarray, "size size 3"]:
    """The square of a decoded picture, as bytes in RGB order."""
    image, resampling = to_rgb(image), _FILTERS[resample]
    if fit == "squash":
        square = image.resize((size, size), resampling)
    elif fit == "crop":
        square = _crop_resized(image, size, resampling)
    else:
        square = _pad_and_crop(image, size, ratio, resampling)
    return np.array(square)  # a copy: torch wants writable memory


def _pad_and_crop(
    image: Image.Image, size: int, ratio: float, resampling: Image.Resampling
) -> Image.Image:
    left, top = _target_bars(image.size, ratio)
    if (image.width + 2 * left) * (image.height + 2 * top) > STRIP_PIXELS:
        image = _pad_and_resize_in_strips(image, size, ratio, resampling)
    else:
        image = resize_short_side(target_pad(image, ratio), size, resampling)
    return crop_centre(image, size)


def _crop_resized(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """The middle of the resized picture. Of a long and thin one only the middle is resized, one
    side after the other as Pillow itself does, since the whole would take gigabytes: it looks
    beyond a box as far as its filter reaches, so that the pixels are the same but for the rounding
    of the box."""
    width, height = _short_side_size(image.size, size)
    if width * height <= STRIP_PIXELS:
        return crop_centre(resize_short_side(image, size, resampling), size)
    left, top = _centre((width, height), size)
    across, down = image.width / width, image.height / height
    columns = (left * across, 0, (left + size) * across, image.height)
    narrow = image.resize((size, image.height), resampling, columns)
    rows = (0, top * down, size, (top + size) * down)
    return narrow.resize((size, size), resampling, rows)


def to_rgb(image: Image.Image) -> Image.Image:
    """Colours only, 8 bits each: docs/images.md says what becomes of each kind of file.

    Of 16 bits the upper 8 are kept, as Pillow itself does for colours; its conversion of grey
    would make everything above 255 white. An alpha channel is dropped, not blended with a
    background.
    """
    if image.mode in SIXTEEN_BITS:
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # Pillow warns about the direct way; the colours are the same
    return image.convert("RGB")


def target_pad(image: Image.Image, ratio: float = TARGET_RATIO) -> Image.Image:
    """Black bars on both sides of the shorter dimension, until long / short <= ratio."""
    bars = _target_bars(image.size, ratio)
    return image if bars == (0, 0) else ImageOps.expand(image, border=bars, fill=0)


def _target_bars(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    """Pixels on the left and on the right, and above and below."""
    width, height = size
    if max(size) / min(size) < ratio:
        return (0, 0)
    wanted = max(size) / ratio
    return (max(int((wanted - width) / 2), 0), max(int((wanted - height) / 2), 0))


def _pad_and_resize_in_strips(
    image: Image.Image, size: int, ratio: float, resampling: Image.Resampling
) -> Image.Image:
    """``resize_short_side(target_pad(image), size)`` to the bit, without the padded picture in
    memory: Pillow too resizes row by row first, rounds to bytes, and then column by column."""
    left, top = _target_bars(image.size, ratio)
    width, height = image.width + 2 * left, image.height + 2 * top
    target = _short_side_size((width, height), size)
    narrow = Image.new("RGB", (target[0], height))
    rows = max(STRIP_PIXELS // width, 1)
    for start in range(0, image.height, rows):
        strip = image.crop((0, start, image.width, min(start + rows, image.height)))
        strip = ImageOps.expand(strip, border=(left, 0), fill=0)
        narrow.paste(strip.resize((target[0], strip.height), resampling), (0, top + start))
    return narrow.resize(target, resampling)


def square_pad(image: Image.Image) -> Image.Image:
    """Black bars until the picture is square (up to one pixel, as published)."""
    width, height = image.size
    longest = max(width, height)
    bars = ((longest - width) // 2, (longest - height) // 2)
    return ImageOps.expand(image, border=bars, fill=0)


def resize_short_side(
    image: Image.Image, size: int, resampling: Image.Resampling = BICUBIC
) -> Image.Image:
    """The long side is truncated to whole pixels, as torchvision's ``Resize``."""
    target = _short_side_size(image.size, size)
    return image if target == image.size else image.resize(target, resampling)


def _short_side_size(old: tuple[int, int], size: int) -> tuple[int, int]:
    width, height = old
    if width <= height:
        return (size, int(size * height / width))
    return (int(size * width / height), size)


def crop_centre(image: Image.Image, size: int) -> Image.Image:
    """The middle square; half pixels round to even, as torchvision's ``CenterCrop``."""
    left, top = _centre(image.size, size)
    return image.crop((left, top, left + size, top + size))


def _centre(of: tuple[int, int], size: int) -> tuple[int, int]:
    width, height = of
    return round((width - size) / 2), round((height - size) / 2)
