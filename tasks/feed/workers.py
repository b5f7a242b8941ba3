"""Processes that decode images ahead of a model."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cir_core.errors import CirError, WorkerLost
from cir_core.layers.preprocess import Preprocess
from tasks.child import Child
from tasks.feed.decode import ImageFile, Job, Problems, map_slots
from tasks.feed.lookahead import ahead

CHUNK = 8
"""Images of a job: some 50 ms of work at 384 px for one message."""

SERVE = "tasks.feed.decode:serve"


@dataclass(frozen=True)
class Crops:
    """Of some files in order; where there is a problem, the pixels mean nothing."""

    pixels: UInt8[np.ndarray, "image size size 3"]
    problems: Problems


@contextmanager
def decoded(
    chunks: Iterable[Sequence[ImageFile]], root: Path, pictures: Preprocess, *, workers: int
) -> Iterator[Iterator[Crops]]:
    """The crops of each chunk of at most CHUNK files, in order, by at most this many processes,
    which are gone at the end. A chunk's pixels are overwritten once the next is asked for.

    Workers run a few chunks ahead, into memory that they share with this process: through a pipe a
    crop of 384 px would cost both sides together 1.4 ms instead of 0.1. Raises as ``load_crop``,
    in the order of the files, and WorkerLost when a process dies.
    """
    shape = (2 * (workers + 1), CHUNK, *pictures.shape)
    started: list[_Worker] = []
    with _shared_memory(prod(shape)) as memory:

        def ask(numbered: tuple[int, Sequence[ImageFile]]) -> _Answer:
            number, files = numbered
            if len(started) < workers:
                started.append(_Worker(memory, shape))
            slot = number % shape[0]
            return started[number % workers].ask(Job(root, slot, files, pictures))

        try:
            slots = map_slots(memory, shape)
            answers = ahead(ask, enumerate(chunks), shape[0])
            yield (Crops(slots[slot, : len(found)], found) for slot, found in answers)
        finally:
            for worker in started:
                worker.end()


@contextmanager
def _shared_memory(size: int) -> Iterator[int]:
    """An open file without a name: however this process ends, its space is free again."""
    if hasattr(os, "memfd_create"):  # unlike /dev/shm, not as small as a container may make it
        descriptor = os.memfd_create("crops")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.truncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


class _Worker:
    """One process. It answers in the order in which it was asked."""

    def __init__(self, memory: int, shape: Sequence[int]) -> None:
        self._child = Child(SERVE, memory, *shape, files=(memory,))

    def ask(self, job: Job) -> "_Answer":
        try:
            self._child.channel.send(job)
        except OSError as error:
            raise self._lost() from error
        return _Answer(self, job.slot)

    def receive(self) -> Problems:
        try:
            answer: Problems | CirError = self._child.channel.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(answer, CirError):
            raise answer
        return answer

    def _lost(self) -> WorkerLost:
        return WorkerLost(
            "a process that decodes images has died",
            cause=self._child.fate(),
            remedy="run the same command again: finished parts are kept; a smaller --workers needs "
            "less memory, --workers 0 no other process",
        )

    def end(self) -> None:
        self._child.end()


@dataclass(frozen=True)
class _Answer:
    """What a worker will say to a job; to be asked for in the order of the jobs."""

    worker: _Worker
    slot: int

    def result(self) -> tuple[int, Problems]:
        return self.slot, self.worker.receive()
