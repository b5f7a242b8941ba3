"""Image files to crops: read, checked against the bytes that were ingested, decoded, cropped.

What a worker process runs. Nothing here imports torch, so one is ready within half a second.
"""

import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cir_core.errors import CirError, ImageProblem, PreflightError
from cir_core.layers.preprocess import Preprocess
from storage.sources.images import decode_image, read_image, sha256_of_bytes

Problems = list[ImageProblem | None]
"""Of files in order: None where a picture could be decoded."""


@dataclass(frozen=True)
class ImageFile:
    """An ingested image: where it is and what its bytes were."""

    image_id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Job:
    """Files to decode into one slot of the shared memory."""

    root: Path
    slot: int
    files: Sequence[ImageFile]
    pictures: Preprocess


def load_crop(
    crop: UInt8[np.ndarray, "height width 3"], root: Path, file: ImageFile, pictures: Preprocess
) -> ImageProblem | None:
    """Read, check, decode, and fill ``crop``. A picture that cannot be decoded is a problem,
    returned, and no reason to stop: its bytes will never be better.

    Raises PreflightError when the file's bytes are no longer those that were ingested, and
    ImageProblem when it cannot be read any more. Neither is kept: the next run may read it.
    """
    content = read_image(root, file.path)
    if sha256_of_bytes(content) != file.sha256:
        raise PreflightError(
            "an image has changed since this run began",
            item=file.path,
            cause="something writes to the data root",
            remedy="run the same command again once the data root is at rest",
        )
    try:
        crop[:] = pictures.crop(decode_image(content, file.path))
    except ImageProblem as problem:
        return problem
    return None


def map_slots(memory: int, shape: Sequence[int]) -> UInt8[np.ndarray, "slot image height width 3"]:
    """The crops in an open file that processes share."""
    return np.frombuffer(mmap.mmap(memory, prod(shape)), np.uint8).reshape(shape)


def serve(channel: int, memory: int, *shape: int) -> None:
    """Answer each Job with the Problems of its files, or with the error that stops it, until the
    other end is closed: by a parent that is done, or that was killed."""
    slots = map_slots(memory, shape)
    with suppress(EOFError, ConnectionError), Connection(channel) as parent:
        while True:
            job: Job = parent.recv()
            try:
                parent.send(_fill(slots[job.slot], job))
            except CirError as error:
                parent.send(error)


def _fill(crops: UInt8[np.ndarray, "image height width 3"], job: Job) -> Problems:
    return [
        load_crop(crop, job.root, file, job.pictures)
        for crop, file in zip(crops, job.files, strict=False)
    ]
