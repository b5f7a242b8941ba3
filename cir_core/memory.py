"""How much memory there is and was used, and how it is told that there was not enough."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32768}
"""Rows of a product, by the type of the device: more gain nothing, where there is memory for them.
On the CPU speed is flat from 800 tokens on (measured up to 4096 at width 768); a GPU wants products
of many thousand rows."""

FORGET = "5"
"""To ``/proc/self/clear_refs``: the peak of resident memory is what is resident now."""

_forgotten = dict.fromkeys(TOKENS_AT_ONCE, 0)
"""By the type of the device, the peaks before ``forget_peaks``."""


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on the device now, other programs' use taken off."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held at once: of a GPU what torch allocated there, of a CPU
    its resident memory."""
    return max(recent_peak(device), _forgotten[device.type])


def recent_peak(device: torch.device) -> int:
    """``peak_memory`` since ``forget_peaks``."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resident_peak(os.getpid())
    if peak is not None:  # else the system has no such file
        return peak
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 2**10


def forget_peaks(device: torch.device) -> None:
    """Begin to look for the most memory anew, where the system can: elsewhere than on Linux, the
    peak of resident memory stays that of the process."""
    for one in {torch.device("cpu"), device}:
        _forgotten[one.type] = peak_memory(one)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(FORGET, encoding="ascii")


def resident_peak(process: int) -> int | None:
    """The most bytes of a living process that were resident at once; None where that is not told.
    (``getrusage`` tells a child its parent's peak, if that is more.)"""
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        peaks = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0].split()[1]) * 2**10
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch raised this because an allocation failed, on a GPU or on the CPU (where it is a
    plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
