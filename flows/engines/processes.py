"""Several processes of one machine share the shards of a pass."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import torch

from cir_core.errors import UsageError, WorkerLost
from cir_core.memory import free_memory
from cir_core.planning.schedule import shared_out
from tasks.child import Child
from tasks.machine import Machine
from tasks.progress import Counter, Task, count
from tasks.stages.chronicle import Committed
from tasks.stages.stage import Pass
from tasks.worker import Counted, Ended, Job

SERVE = "tasks.worker:serve"

ROUNDS = 3
"""How often shards are given out at most, when workers are killed: what the third of them in a row
dies of is no accident."""

VISIBLE = "CUDA_VISIBLE_DEVICES"

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_log = logging.getLogger(__name__)


class Share(NamedTuple):
    """What one of several workers has: its part of the machine, and the environment that holds it
    to that."""

    machine: Machine
    environment: Mapping[str, str]


def share_out(one_pass: Pass, shards: Sequence[str], machine: Machine) -> Iterator[Committed]:
    """An ``Each``: ``machine.processes`` workers, each with its own models, make the shards, which
    are shared out by weight; what they commit has the same bytes as one process's with as many
    threads.

    Errors of a worker are raised here, and end the others. The shards of one that is killed are
    given out again, the others' results stay; after ``ROUNDS`` raises WorkerLost. However this
    ends, no worker stays.
    """
    left, lost = list(shards), list[Child]()
    for _ in range(ROUNDS):
        lost.clear()
        yield from _one_round(one_pass, left, machine, lost)
        if not lost:
            return
        _log.warning("%d of %d workers have died: %s", len(lost), machine.processes, lost[0].fate())
        missing = {
            shard for stage in one_pass.stages if not stage.made.is_whole for shard in stage.left()
        }
        left = [shard for shard in shards if shard in missing]
        if not left:
            return
    raise WorkerLost(
        "processes that share the work die again and again",
        cause=lost[0].fate(),
        remedy="run the same command again: finished parts are kept; fewer --processes need less "
        "memory",
    )


def shares_of(machine: Machine, workers: int) -> list[Share]:
    """Equal ones: of cores, memory, and decoding processes; and a device each, of the machine's
    ``devices`` in their order, where it names some. Raises UsageError when there are more workers
    than GPUs."""
    devices = (machine.devices or _a_device_each(machine.device, workers))[:workers]
    memory = machine.memory
    if memory is None and machine.device == "cpu":
        memory = free_memory(torch.device("cpu")) // 2
    one = replace(
        machine,
        processes=1,
        devices=(),
        memory=None if memory is None else memory // workers,
        workers=-(-machine.workers // workers),
    )
    return [
        Share(replace(one, device=device.partition(":")[0]), _environment(device, workers))
        for device in devices
    ]


def _a_device_each(device: str, workers: int) -> Sequence[str]:
    if device == "cpu":
        return ["cpu"] * workers
    gpus = len(_visible())
    if device != "cuda" or workers > gpus:
        raise UsageError(
            f"{workers} processes cannot share {device}",
            cause=f"each takes a GPU of its own, and {gpus} are visible",
            remedy="pass --device cuda, and --processes with as many as there are GPUs at most",
        )
    return [f"cuda:{number}" for number in range(workers)]


def _environment(device: str, workers: int) -> Mapping[str, str]:
    if device == "cpu":
        return dict.fromkeys(THREADS, str(max(1, torch.get_num_threads() // workers)))
    return {VISIBLE: _visible()[int(device.removeprefix("cuda:"))]}


def _visible() -> Sequence[str]:
    """The GPUs' names to CUDA, by their numbers here."""
    names = os.environ.get(VISIBLE) or ",".join(map(str, range(torch.cuda.device_count())))
    return names.split(",")


def _one_round(
    one_pass: Pass, shards: Sequence[str], machine: Machine, lost: list[Child]
) -> Iterator[Committed]:
    """Give the shards out once; workers that were killed are added to ``lost``."""
    workers = min(machine.processes, len(shards))
    level = logging.getLogger().getEffectiveLevel()
    with ExitStack() as ending:
        children: dict[Any, Child] = {}
        mine = shared_out(one_pass.weights(shards), workers)
        for share, numbers in zip(shares_of(machine, workers), mine, strict=True):
            child = Child(SERVE, environment=share.environment)
            ending.callback(child.end)
            child.channel.send(
                Job(one_pass, [shards[one] for one in numbers], share.machine, level)
            )
            children[child.channel] = child
        progress = ending.enter_context(_Progress(workers))
        while children:
            for channel in wait(list(children)):
                try:
                    said: Any = children[channel].channel.recv()
                except (EOFError, OSError):
                    lost.append(_lost(children.pop(channel)))
                    progress.ended()
                    continue
                if isinstance(said, Committed):
                    yield said
                elif isinstance(said, Ended):
                    children.pop(channel)
                    progress.ended()
                    if said.error is not None:
                        raise said.error
                elif isinstance(said, logging.LogRecord):
                    logging.getLogger(said.name).handle(said)
                else:
                    progress.note(said)


def _lost(child: Child) -> Child:
    """A worker that was killed; raises WorkerLost for one that ended by itself, which a second one
    would do again."""
    if child.was_killed():
        return child
    raise WorkerLost(
        "a process that shares the work has failed",
        cause=child.fate(),
        remedy="this is a bug: please report it; --processes 1 works without other processes",
    )


class _Progress:
    """One counter of what all workers do, once each has said how much that is."""

    def __init__(self, workers: int) -> None:
        self._silent, self._tasks, self._units = workers, list[Task](), 0
        self._counter: Counter | None = None
        self._open = ExitStack()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def note(self, said: Task | Counted) -> None:
        if isinstance(said, Task):
            self._tasks.append(said)
            self._begin()
        elif self._counter is None:
            self._units += said.units
        else:
            self._counter.update(said.units)

    def ended(self) -> None:
        """Of a worker."""
        self._silent -= 1
        self._begin()

    def _begin(self) -> None:
        if self._counter is None and self._tasks and len(self._tasks) >= self._silent:
            label, total, unit, _ = self._tasks[0]
            missing = sum(task.total - task.done for task in self._tasks)
            counting = count(label, total, unit, done=total - missing)
            self._counter = self._open.enter_context(counting)
            if self._units:
                self._counter.update(self._units)
