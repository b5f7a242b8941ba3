"""In which numbers models compute. Embeddings and scores are fp32 whatever they are."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

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

TURNS = 3
"""Of a measurement: the first one prepares what the others find."""


class CastsText(nn.Module):
    """A retriever whose module ``text`` computes in any precision; all else of it but its encoder
    stays in fp32: what is projected and scaled to unit length is a small part of the work."""

    text: Any
    text_projection: nn.Linear
    precision: Precision = "fp32"

    def cast(self, precision: Precision) -> Self:
        self.precision = precision
        self.text.to(DTYPES[precision])
        return self

    def for_text(self, states: Tensor) -> Tensor:
        """As the module takes them."""
        return states.to(next(self.text.parameters()).dtype)

    def for_heads(self, states: Tensor) -> Tensor:
        """As what ends in embeddings takes them."""
        return states.to(self.text_projection.weight.dtype)


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


def bf16_time() -> float:
    """How long this processor takes for a product of matrices in bf16, against fp32: measured, in a
    fifth of a second at most. AMX and AVX-512 multiply bf16 in fewer steps than fp32; without them
    it is converted to and fro."""
    rows, width = 256, 768
    matrices = [torch.ones(shape, width) for shape in (rows, width)]
    of_each = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for dtype in [*of_each] * TURNS:
        left, right = (matrix.to(dtype) for matrix in matrices)
        began = time.perf_counter()
        functional.linear(left, right)
        of_each[dtype] = min(of_each[dtype], time.perf_counter() - began)
    return of_each[torch.bfloat16] / of_each[torch.float32]


@contextmanager
def rounded_products(precision: Precision) -> Iterator[None]:
    """Inside, fp32 products and convolutions on a GPU are in tf32 if, and only if, that is the
    precision."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
