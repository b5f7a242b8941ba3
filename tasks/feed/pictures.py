"""Ingested images by their bytes: copies of each other are one picture, whatever their ids."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from storage.tables import rows_of


@dataclass(frozen=True)
class Distinct:
    """``table`` has the first image of each picture, in the order of the images; ``of_image`` the
    picture of each image, ``ids`` are the images'."""

    table: pa.Table
    of_image: np.ndarray
    ids: pa.Array

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def copies(self) -> list[list[str]]:
        """The ids of each picture's images, in their order."""
        found: list[list[str]] = [[] for _ in range(len(self))]
        for picture, image in zip(self.of_image.tolist(), self.ids.to_pylist(), strict=True):
            found[picture].append(image)
        return found

    def of(self, ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """The picture of each image by its id; -1 where there is none."""
        rows = rows_of(ids, pa.chunked_array([self.ids]))
        return np.append(self.of_image, -1)[rows]


def distinct_pictures(images: pa.Table) -> Distinct:
    """Of rows of the table ``images``."""
    first = rows_of(images["sha256"], images["sha256"])
    pictures, of_image = np.unique(first, return_inverse=True)
    return Distinct(images.take(pa.array(pictures)), of_image, images["image_id"].combine_chunks())
