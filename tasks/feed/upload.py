"""Batches to the device that computes, while it computes."""

import torch
from torch import Tensor


class Upload:
    """Copies to ``device``. For a GPU from pinned memory and in a stream of its own, so that the
    copy runs beside the model; on the CPU there is nothing to copy.

    ``buffer`` and ``send`` belong in a thread that works ahead, ``claim`` where the result is used.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def buffer(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host to be filled and sent."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._stream is not None)

    def send(self, filled: Tensor) -> Tensor:
        """The same on the device, all of it, when this returns."""
        if self._stream is None:
            return filled.to(self.device)
        with torch.cuda.stream(self._stream):
            sent = filled.to(self.device, non_blocking=True)
        self._stream.synchronize()  # of this stream and in this thread alone; others go on
        return sent

    def claim(self, sent: Tensor) -> Tensor:
        """The same, safe in the current stream: its memory is not given to a later batch before
        what this stream computes from it is done."""
        if self._stream is not None:
            sent.record_stream(torch.cuda.current_stream(self.device))
        return sent
