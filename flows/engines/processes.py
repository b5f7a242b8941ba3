"""Several processes of this machine share the shards of a pass."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

import torch

from cir_core.errors import UsageError
from cir_core.memory import free_memory
from flows.engines.sharing import Given, Share, Workers
from tasks.child import Child
from tasks.machine import VISIBLE, Machine
from tasks.worker import SERVE, Ended

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Processes(Workers):
    """``machine.processes`` fresh interpreters, for one round each."""

    def shares(self, machine: Machine, most: int) -> Sequence[Share]:
        return shares_of(machine, min(machine.processes, most))

    @contextmanager
    def serve(self, given: Sequence[Given]) -> Iterator[Iterator[Any]]:
        with ExitStack() as ending:
            children = list[Child]()
            for share, job in given:
                child = Child(SERVE, environment=share.environment)
                ending.callback(child.end)
                child.channel.send(job)
                children.append(child)
            yield _all_say(children)


def _all_say(children: Sequence[Child]) -> Iterator[Any]:
    """See ``Workers.serve``."""
    working: dict[Any, Child] = {child.channel: child for child in children}
    while working:
        for channel in wait(list(working)):
            try:
                said = working[channel].channel.recv()
            except (EOFError, OSError):
                said = working.pop(channel).lost()
            if isinstance(said, Ended):
                working.pop(channel)
            yield said


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


def with_threads(threads: int) -> Mapping[str, str]:
    """The environment of a process that computes with so many, at least one."""
    return dict.fromkeys(THREADS, str(max(1, threads)))


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
        return with_threads(torch.get_num_threads() // workers)
    return {VISIBLE: _visible()[int(device.removeprefix("cuda:"))]}


def _visible() -> Sequence[str]:
    """The GPUs' names to CUDA, by their numbers here."""
    names = os.environ.get(VISIBLE) or ",".join(map(str, range(torch.cuda.device_count())))
    return names.split(",")
