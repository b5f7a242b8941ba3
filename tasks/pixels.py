"""Image files to pixel batches, each file checked against the bytes that were ingested."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cir_core.errors import ImageProblem, PreflightError
from cir_core.images import prepare
from storage.images import decode_image, read_image, sha256_of_bytes

THREADS = 4
"""Pillow decodes without the interpreter lock; more threads than this only wait for memory."""


@dataclass(frozen=True)
class ImageFile:
    """An ingested image: where it is and what its bytes were."""

    image_id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Pixels:
    """``rows`` are the usable ones of the files asked for, ``pixels`` [row, size, size, 3] theirs;
    ``problems`` maps the rows of the others to what is wrong with them."""

    rows: list[int]
    pixels: Tensor
    problems: dict[int, ImageProblem]


def image_files(images: pa.Table) -> list[ImageFile]:
    """The rows of the table ``images``, in order."""
    rows = images.select(["image_id", "path", "sha256"]).to_pylist()
    return [ImageFile(row["image_id"], row["path"], row["sha256"]) for row in rows]


def load_pixels(root: Path, files: list[ImageFile], size: int) -> Pixels:
    """Read, check, decode and crop. A picture that cannot be decoded is a problem, in order, and no
    reason to stop: its bytes will never be better.

    Raises PreflightError when a file's bytes are no longer those that were ingested, and
    ImageProblem when it cannot be read any more. Neither is kept: the next run may read it.
    """
    # decoding silences Pillow's warnings, and in Python 3.11 the filters are shared by all threads:
    # this restores them once the last thread is done
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        loaded = list(pool.map(lambda file: _load(root, file, size), files))
    arrays = [crop for crop in loaded if not isinstance(crop, ImageProblem)]
    pixels = np.stack(arrays) if arrays else np.empty((0, size, size, 3), dtype=np.uint8)
    return Pixels(
        rows=[row for row, crop in enumerate(loaded) if not isinstance(crop, ImageProblem)],
        pixels=torch.from_numpy(pixels),
        problems={row: crop for row, crop in enumerate(loaded) if isinstance(crop, ImageProblem)},
    )


def _load(root: Path, file: ImageFile, size: int) -> np.ndarray | ImageProblem:
    content = read_image(root, file.path)
    if sha256_of_bytes(content) != file.sha256:
        raise PreflightError(
            "an image has changed since this run began",
            item=file.path,
            cause="something writes to the data root",
            remedy="run the same command again once the data root is at rest",
        )
    try:
        return prepare(decode_image(content, file.path), size)
    except ImageProblem as problem:
        return problem
