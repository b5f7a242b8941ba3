"""How much memory there is, and how it is told that there was not enough."""

import psutil
import torch


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on the device now, other programs' use taken off."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch raised this because an allocation failed, on a GPU or on the CPU (where it is a
    plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
