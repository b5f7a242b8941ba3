"""In which numbers stage 2 computes. Its scores are fp32 whatever it is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cir_core.errors import UsageError
from cir_core.types import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

AMPERE = (8, 0)
"""The first GPUs with tf32 and bf16."""


def require_precision(precision: Precision, device: torch.device) -> None:
    """Raises UsageError when the device does not compute in this precision: a CPU has fp32 and
    bf16, a GPU before Ampere fp32 and fp16."""
    if device.type == "cpu":
        usable = precision in ("fp32", "bf16")
    else:
        ampere = torch.cuda.get_device_capability(device) >= AMPERE
        usable = ampere or precision in ("fp32", "fp16")
    if not usable:
        raise UsageError(
            f"{precision} is not for the device {device}",
            cause="a CPU computes in fp32 or bf16, a GPU before Ampere in fp32 or fp16",
            remedy="pass --precision fp32, or another --device",
        )


@contextmanager
def rounded_products(precision: Precision) -> Iterator[None]:
    """Inside, fp32 products on a GPU are in tf32 if, and only if, that is the precision."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
