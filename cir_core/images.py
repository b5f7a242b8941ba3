"""Pictures to model input, as published: target-pad, bicubic resize, centre crop, normalise.

Follows torchvision's geometry (rounding included) with Pillow and torch alone. The published
transform converts to RGB last; we convert first. For RGB and greyscale files, all that the
benchmarks hold, both orders give the same pixels; for palettes and the like ours is the sane one.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

TARGET_RATIO = 1.25
"""Longer pictures are padded until their sides are at most 1.25 : 1 (published value)."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def prepare(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The square crop of a decoded picture, as bytes in RGB order."""
    image = crop_centre(resize_short_side(target_pad(to_rgb(image)), size), size)
    return np.array(image)  # a copy: torch wants writable memory


def to_rgb(image: Image.Image) -> Image.Image:
    """Colours only: an alpha channel is dropped, not blended with a background."""
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # Pillow warns about the direct way; the colours are the same
    return image.convert("RGB")


def normalise(pixels: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image 3 size size"]:
    """Bytes to the ViT's input: scaled to 0..1, then CLIP's mean and deviation."""
    scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
    mean = torch.tensor(CLIP_MEAN, device=pixels.device)[:, None, None]
    std = torch.tensor(CLIP_STD, device=pixels.device)[:, None, None]
    return ((scaled - mean) / std).contiguous()


def target_pad(image: Image.Image, ratio: float = TARGET_RATIO) -> Image.Image:
    """Black bars on both sides of the shorter dimension, until long / short <= ratio."""
    width, height = image.size
    if max(width, height) / min(width, height) < ratio:
        return image
    wanted = max(width, height) / ratio
    bars = (max(int((wanted - width) / 2), 0), max(int((wanted - height) / 2), 0))
    return ImageOps.expand(image, border=bars, fill=0)


def square_pad(image: Image.Image) -> Image.Image:
    """Black bars until the picture is square (up to one pixel, as published)."""
    width, height = image.size
    longest = max(width, height)
    bars = ((longest - width) // 2, (longest - height) // 2)
    return ImageOps.expand(image, border=bars, fill=0)


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """Bicubic; the long side is truncated to whole pixels, as torchvision's ``Resize``."""
    width, height = image.size
    if width <= height:
        target = (size, int(size * height / width))
    else:
        target = (int(size * width / height), size)
    return image if target == image.size else image.resize(target, Image.Resampling.BICUBIC)


def crop_centre(image: Image.Image, size: int) -> Image.Image:
    """The middle square; half pixels round to even, as torchvision's ``CenterCrop``."""
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
