"""What of this machine a run uses, where the settings leave it open."""

import logging
import os
import re
from dataclasses import astuple

import torch

from cir_core.errors import UsageError
from cir_core.layers.precision import bf16_time
from cir_core.types import Precisions
from flows.settings import Settings

MOST_WORKERS = 16
"""Beside a GPU. A core decodes some 150 photos a second."""

CORES_PER_WORKER = 8
"""Beside a ViT on the CPU, which takes 100 times as long as decoding: one process keeps up with
the ViT on dozens of cores, and one more for each 8 of them costs nothing."""

SLOWER = 1.2
"""Times as long: nearer to 1, another measurement might say the contrary."""

_log = logging.getLogger(__name__)


def find_device(name: str) -> str:
    """The device that is meant; ``auto`` takes a GPU where there is one. Raises UsageError."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(
            f"device {name!r} cannot be used",
            cause="cpu, cuda and cuda:N are tested; others, such as mps and xpu, are not, and "
            "would give other numbers",
            remedy="pass --device cpu, or auto to take a GPU where there is one",
        )
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:  # no such device
        raise UsageError(
            f"device {name!r} cannot be used",
            cause=str(error).splitlines()[0],
            remedy="pass --device cpu, or auto to take a GPU where there is one",
        ) from error
    return name


def warn_if_slow(precisions: Precisions, device: str) -> None:
    """Say so, before hours of it, where what is asked to compute in bf16 would be quicker in fp32:
    on a processor without instructions for it."""
    if device != "cpu" or "bf16" not in astuple(precisions):
        return
    taken = bf16_time()
    if taken > SLOWER:
        _log.warning(
            "bf16 is slower than fp32 on this processor (%s): a product of matrices takes %.1f "
            "times as long, measured just now; fp32 is quicker, and exact",
            torch.backends.cpu.get_cpu_capability(),
            taken,
        )


def find_devices(settings: Settings) -> tuple[str, ...]:
    """The devices of ``--devices``, a process on each; none where it is not given. Raises
    UsageError for one that is not there, for a GPU that is named twice, for GPUs beside a CPU, and
    where ``--device`` or ``--processes`` says something else."""
    if settings.devices is None:
        return ()
    named = [name.strip() for name in settings.devices.split(",")]
    devices = tuple(f"cuda:{name}" if name.isdecimal() else name for name in named)
    unclear = {"auto", "cuda"}.intersection(devices)
    gpus = [device for device in devices if device != "cpu"]
    if unclear or len(set(gpus)) < len(gpus) or 0 < len(gpus) < len(devices):
        raise UsageError(
            f"devices {settings.devices!r} cannot share the work",
            cause="each process takes a GPU of its own, by its number; and a CPU beside GPUs would "
            "sum in another order",
            remedy="pass --devices 0,1 with each GPU once, or --devices cpu,cpu",
        )
    if settings.device != "auto" or settings.processes not in (None, 1, len(devices)):
        raise UsageError(
            f"--devices {settings.devices} is {len(devices)} processes, a device each",
            cause=f"--device {settings.device} and --processes {settings.processes or 1} say "
            "otherwise",
            remedy="leave out --device and --processes",
        )
    there = {f"cuda:{number}" for number in range(torch.cuda.device_count())}
    # a GPU that is there is left to its process: trying it would keep a context on it
    return tuple(device if device in there else find_device(device) for device in devices)


def find_workers(wanted: int | None, device: str) -> int:
    """Processes that decode images: what was asked for, or a number by device and cores."""
    if wanted is not None:
        return wanted
    cores = _cores()
    if device == "cpu":
        return max(1, cores // CORES_PER_WORKER)
    return min(max(cores - 1, 1), MOST_WORKERS)


def _cores() -> int:
    """That this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
