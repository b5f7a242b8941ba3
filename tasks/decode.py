"""Image files to crops: read, checked against the bytes that were ingested, decoded, cropped.

What worker processes run. Nothing here imports torch, so one is ready within half a second.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from cir_core.errors import ImageProblem, PreflightError, WorkerLost
from cir_core.images import prepare
from storage.images import decode_image, read_image, sha256_of_bytes
from tasks.ahead import ahead

CHUNK = 8
"""Images that a worker decodes at a time: some 50 ms of work at 384 px for one message."""


@dataclass(frozen=True)
class ImageFile:
    """An ingested image: where it is and what its bytes were."""

    image_id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Crops:
    """Of some files in order; where there is a problem, the pixels mean nothing."""

    pixels: UInt8[np.ndarray, "image size size 3"]
    problems: list[ImageProblem | None]


def load_crop(
    crop: UInt8[np.ndarray, "size size 3"], root: Path, file: ImageFile
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
        crop[:] = prepare(decode_image(content, file.path), len(crop))
    except ImageProblem as problem:
        return problem
    return None


@contextmanager
def decoded(
    chunks: Iterable[Sequence[ImageFile]], root: Path, size: int, *, workers: int
) -> Iterator[Iterator[Crops]]:
    """The crops of each chunk of at most CHUNK files, in order, by this many spawned processes,
    which are gone at the end. A chunk's pixels are overwritten once the next is asked for.

    Workers run a few chunks ahead, into memory that they share with this process: through a pipe a
    crop of 384 px cost both sides together 1.4 ms instead of 0.1. Raises as ``load_crop``, in the
    order of the files, and WorkerLost when a process dies.
    """
    spawning = get_context("spawn")
    shape = (2 * (workers + 1), CHUNK, size, size, 3)
    # a file without a name: however this process ends, its space is free again
    memory = spawning.RawArray(ctypes.c_uint8, prod(shape))
    pool = ProcessPoolExecutor(workers, spawning, initializer=_begin, initargs=(memory, shape))
    try:
        yield _in_order(pool, _as_slots(memory, shape), chunks, root)
    finally:
        pool.shutdown(cancel_futures=True)


def _as_slots(memory: Any, shape: tuple[int, ...]) -> UInt8[np.ndarray, "slot image size size 3"]:
    return np.frombuffer(memory, np.uint8).reshape(shape)


def _in_order(
    pool: ProcessPoolExecutor,
    slots: UInt8[np.ndarray, "slot image size size 3"],
    chunks: Iterable[Sequence[ImageFile]],
    root: Path,
) -> Iterator[Crops]:
    jobs = ((number % len(slots), files) for number, files in enumerate(chunks))
    try:
        for slot, problems in ahead(partial(_submit, pool, root), jobs, len(slots)):
            yield Crops(slots[slot, : len(problems)], problems)
    except BrokenProcessPool as error:
        raise WorkerLost(
            "a process that decodes images has died",
            cause="the system killed it, most likely for want of memory, or it could not start",
            remedy="run the same command again: finished parts are kept; --workers with a smaller "
            "number needs less memory, --workers 0 no other process",
        ) from error


def _submit(
    pool: ProcessPoolExecutor, root: Path, job: tuple[int, Sequence[ImageFile]]
) -> "Future[tuple[int, list[ImageProblem | None]]]":
    """This may start a worker, which inherits what is blocked: a terminal's Ctrl-C reaches all
    processes, and the parent alone shall act on it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_fill, root, *job)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in a worker

_slots: list[np.ndarray] = []
"""This worker's view of the shared memory."""


def _begin(memory: Any, shape: tuple[int, ...]) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _slots.append(_as_slots(memory, shape))


def _leave_with_parent() -> None:
    """A parent that is killed cannot tell its workers, which would wait for it for ever."""
    parent = parent_process()
    assert parent is not None  # a worker has one
    connection.wait([parent.sentinel])
    os._exit(1)


def _fill(
    root: Path, slot: int, files: Sequence[ImageFile]
) -> tuple[int, list[ImageProblem | None]]:
    crops = _slots[0][slot]
    problems = [load_crop(crop, root, file) for crop, file in zip(crops, files, strict=False)]
    return slot, problems
