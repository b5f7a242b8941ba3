"""Pictures in their own shape, as models of Qwen's kind take them: both sides multiples of a cell,
the number of pixels within limits, the aspect ratio nearly kept.

A feed has buffers of one size, so a picture lies at the front of one that fits the largest; the
first row tells how many cells it is high and wide.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cir_core.errors import ImageProblem
from cir_core.layers.preprocess import BICUBIC, Preprocess, to_rgb

MOST_STRETCHED = 200
"""Longer pictures are refused, as transformers refuses them."""

VERSION = 1
"""Of what is done here: another one gives other names to what is made of pictures."""

_SIDE = np.dtype("<u2")


@dataclass(frozen=True)
class SmartResize(Preprocess):
    """Sides of whole cells of ``size`` pixels, ``min_pixels`` to ``max_pixels`` in all, but for
    pictures so long that a side of one cell makes more. Rounds as transformers does."""

    min_pixels: int = 4 * 32**2
    max_pixels: int = 1280 * 32**2

    @property
    def most_cells(self) -> int:
        """Of a picture: within the limits; where one side is a single cell; and where a small
        picture is enlarged, both sides being rounded up."""
        stretched = math.isqrt(MOST_STRETCHED * self.max_pixels) // self.size
        long = math.isqrt(MOST_STRETCHED * self.min_pixels) // self.size + 2
        enlarged = self.min_pixels // self.size**2 + long + 2
        return max(self.max_pixels // self.size**2, stretched, enlarged)

    @property
    def told(self) -> str:
        return f"{self.min_pixels:,} to {self.max_pixels:,} pixels"

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1 + self.most_cells, self.size**2, 3

    def cells(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of cells of a picture of so many pixels. Raises ImageProblem for one
        that is more than 200 times as long as wide."""
        if max(width, height) / min(width, height) > MOST_STRETCHED:
            raise ImageProblem(
                "too_long",
                "a picture is too long for this model",
                cause=f"{width} x {height} pixels; at most {MOST_STRETCHED} : 1 is read",
            )
        cell, area = self.size, width * height
        rows, columns = round(height / cell), round(width / cell)
        if rows * columns * cell**2 > self.max_pixels:
            shrink = math.sqrt(area / self.max_pixels)
            rows = max(1, math.floor(height / shrink / cell))
            columns = max(1, math.floor(width / shrink / cell))
        elif rows * columns * cell**2 < self.min_pixels:
            grow = math.sqrt(self.min_pixels / area)
            rows, columns = math.ceil(height * grow / cell), math.ceil(width * grow / cell)
        return rows, columns

    def crop(self, image: Image.Image) -> UInt8[np.ndarray, "row pixel 3"]:
        """The whole picture, packed (``unpack``). Raises as ``cells``."""
        image = to_rgb(image)
        rows, columns = self.cells(*image.size)
        resized = image.resize((columns * self.size, rows * self.size), BICUBIC)
        packed = np.zeros(self.shape, dtype=np.uint8)
        packed[0].reshape(-1)[: 2 * _SIDE.itemsize] = np.array([rows, columns], _SIDE).view(
            np.uint8
        )
        packed[1:].reshape(-1)[: 3 * resized.width * resized.height] = np.asarray(resized).ravel()
        return packed

    def unpack(
        self, packed: UInt8[np.ndarray, "row pixel 3"]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """The picture that was packed."""
        sides = packed[0].reshape(-1)[: 2 * _SIDE.itemsize].copy().view(_SIDE)
        rows, columns = (int(side) * self.size for side in sides)
        return packed[1:].reshape(-1)[: 3 * rows * columns].reshape(rows, columns, 3)

    def settings(self) -> dict[str, Any]:
        return {
            "resize": VERSION,
            "cell": self.size,
            "pixels": [self.min_pixels, self.max_pixels],
            "mean": self.mean,
            "std": self.std,
        }
