"""What a run uses of its machine: it changes time, and no result."""

from dataclasses import dataclass

from cir_core.types import Keeping

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Names to CUDA the GPUs that a process may use, with commas between them; unset: all."""


@dataclass(frozen=True)
class Machine:
    """Never part of a name. ``batch`` images go through a model at once; ``workers`` processes
    decode them ahead; ``memory`` bounds the bytes that scoring takes beside models and images
    (None: half of what is free); ``tokens`` says whether kept image tokens are read; ``processes``
    share the shards of a stage, on these ``devices``, one each (none: as ``device`` says)."""

    device: str = "cpu"
    batch: int = 32
    workers: int = 0
    memory: int | None = None
    tokens: Keeping = "auto"
    processes: int = 1
    devices: tuple[str, ...] = ()
