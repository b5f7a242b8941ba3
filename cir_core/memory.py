"""How much memory there is and was used, and how it is told that there was not enough."""

import resource
import sys
from pathlib import Path

import psutil
import torch

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32768}
"""Rows of a product, by the type of the device: more gain nothing, where there is memory for them.
On the CPU speed is flat from 800 tokens on (measured up to 4096 at width 768); a GPU wants products
of many thousand rows."""


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on the device now, other programs' use taken off."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held at once: of a GPU what torch allocated there, of a CPU
    its resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # getrusage tells a child its parent's peak, if that is more
    if status.is_file():
        peaks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0].split()[1]) * 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 2**10


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch raised this because an allocation failed, on a GPU or on the CPU (where it is a
    plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
