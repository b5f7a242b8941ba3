"""What goes to a GPU and comes back, without that the host waits for more than it asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def send(arrays: Sequence[Int[np.ndarray, " some"]], device: torch.device) -> Sequence[Tensor]:
    """Indices on the device, in one copy, which this does not wait for."""
    together = torch.from_numpy(np.concatenate(arrays))
    if device.type == "cuda":
        together = together.pin_memory()
    return together.to(device, non_blocking=True).split([len(each) for each in arrays])


@dataclass(frozen=True)
class Fetched:
    """A copy on the host that may be under way; without ``done`` it is there."""

    copy: Float[Tensor, "..."]
    done: torch.cuda.Event | None = None

    @classmethod
    def of(cls, x: Float[Tensor, "..."]) -> Self:
        """Of what is there, or was launched, where ``x`` is."""
        if not x.is_cuda:
            return cls(x)
        copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)
        return cls(copy, torch.cuda.current_stream(x.device).record_event())

    def numpy(self) -> Float[np.ndarray, "..."]:
        """Waits for it, and for nothing that was launched later."""
        if self.done is not None:
            self.done.synchronize()
        return self.copy.numpy()
