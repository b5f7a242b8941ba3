"""Image files to batches of pixels on the device of a model that should not wait for them."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import UInt8
from torch import Tensor

from cir_core.errors import ImageProblem
from cir_core.layers.preprocess import Preprocess
from tasks.feed.decode import ImageFile, load_crop
from tasks.feed.lookahead import prepared
from tasks.feed.upload import Upload
from tasks.feed.workers import CHUNK, Crops, decoded

THREADS = 4
"""Pillow decodes without the interpreter lock; more threads than this only wait for memory."""


@dataclass(frozen=True)
class Pixels:
    """``rows`` are the usable ones of the files asked for, ``pixels`` theirs; ``problems`` maps the
    rows of the others to what is wrong with them."""

    rows: list[int]
    pixels: UInt8[Tensor, "image height width 3"]
    problems: dict[int, ImageProblem]


def image_files(images: pa.Table) -> list[ImageFile]:
    """The rows of the table ``images``, in order."""
    rows = images.select(["image_id", "path", "sha256"]).to_pylist()
    return [ImageFile(row["image_id"], row["path"], row["sha256"]) for row in rows]


def batches(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    """The rows in runs of ``size``, the last one shorter; of no rows, none."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def load_pixels(root: Path, files: Sequence[ImageFile], pictures: Preprocess) -> Pixels:
    """All of the files, by threads of this process, while nothing else goes on.

    ``rows`` are those of ``files``. Raises as ``load_crop``.
    """
    upload = Upload(torch.device("cpu"))
    return _gather(range(len(files)), [_load(root, files, pictures)], pictures, upload)


@contextmanager
def feed_pixels(
    root: Path,
    files: Sequence[ImageFile],
    plan: Sequence[Sequence[int]],
    pictures: Preprocess,
    *,
    device: torch.device,
    workers: int,
) -> Iterator[Iterator[Pixels]]:
    """The pixels of each batch of rows of ``files``, in the order of the plan, on the device.

    ``workers`` processes decode ahead of what is asked for, across batches; a thread puts the next
    batch together and uploads it while the last one is used. Memory is bounded by the batch and
    the workers, whatever the number and the sizes of the images. With 0 workers each batch is
    decoded when it is asked for, in this process. The pixels are the same. Raises as ``decoded``.
    """
    upload = Upload(device)
    if workers == 0:
        yield (
            _gather(rows, [_load(root, [files[row] for row in rows], pictures)], pictures, upload)
            for rows in plan
        )
        return
    chunks = ([files[row] for row in some] for rows in plan for some in batches(rows, CHUNK))
    with decoded(chunks, root, pictures, workers=workers) as crops:

        def make(rows: Sequence[int]) -> Pixels:
            return _gather(rows, islice(crops, len(batches(rows, CHUNK))), pictures, upload)

        with prepared(make, plan) as made:
            yield (replace(one, pixels=upload.claim(one.pixels)) for one in made)


def _gather(
    rows: Sequence[int], parts: Iterable[Crops], pictures: Preprocess, upload: Upload
) -> Pixels:
    buffer = upload.buffer(len(rows), *pictures.shape, dtype=torch.uint8)
    pixels = buffer.numpy()  # torch would copy with threads of its own, beside the model's
    usable: list[int] = []
    problems: dict[int, ImageProblem] = {}
    asked = iter(rows)
    for part in parts:
        for crop, problem in zip(part.pixels, part.problems, strict=True):
            row = next(asked)
            if problem is None:
                pixels[len(usable)] = crop
                usable.append(row)
            else:
                problems[row] = problem
    return Pixels(usable, upload.send(buffer[: len(usable)]), problems)


def _load(root: Path, files: Sequence[ImageFile], pictures: Preprocess) -> Crops:
    crops = np.empty((len(files), *pictures.shape), dtype=np.uint8)
    # decoding silences Pillow's warnings, and in Python 3.11 the filters are shared by all threads:
    # no thread shall see them on again before the last one is done
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("ignore")
        problems = list(pool.map(load_crop, crops, repeat(root), files, repeat(pictures)))
    return Crops(crops, problems)
