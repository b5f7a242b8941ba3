"""Models from and to their folders on disk, and texts as their tokens.

A model folder holds ``config.json`` (kind and sizes) and ``model.safetensors``. ``save_model``
writes one; ``open_stage1`` and ``open_stage2`` read it.
"""

from pathlib import Path

import torch

from cir_core.errors import PreflightError
from cir_core.families import load_stage1, load_stage2, parse_config
from cir_core.layers.vision import VisionTransformer
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.fusion import Stage1Model
from storage.models.folders import (
    WEIGHTS_FILE,
    Checkpoint,
    read_checkpoint,
    read_config,
    write_checkpoint,
)


def save_model(
    model: Stage1Model | Stage2Model, folder: Path, *, dtype: torch.dtype = torch.float32
) -> str:
    """Write a model folder, atomically; returns the sha256 of its weights.

    What is opened again is equal bit for bit: to ``model`` in fp32, to its weights rounded to
    ``dtype`` otherwise (fp16 halves the bytes; training resolves more coarsely than it rounds).
    A model that is in ``folder`` already is replaced. Raises NonFiniteError (and writes nothing)
    when a weight is too large for ``dtype``, OutOfSpace, and PreflightError when the folder cannot
    be made.
    """
    return write_checkpoint(folder, model.config.model_dump(), model.state_dict(), dtype=dtype)


def open_stage1(folder: Path, *, sha256: str | None = None) -> Stage1Model:
    """Stage 1, or a pre-trained base, in eval mode and fp32, on the CPU.

    ``sha256`` (of ``model_sha256``) is the model that results will be named after: any other is
    refused. Raises CheckpointRefused for the wrong stage, tensors that are missing, extra or
    misshapen, an unreadable folder, or weights that are not those of their record; NonFiniteError
    for NaN or infinity; PreflightError when the folder no longer holds the model of that name.
    """
    read = _read(folder, sha256)
    return load_stage1(parse_config(read.config, str(folder)), read.tensors, str(folder))


def open_stage2(folder: Path, *, sha256: str | None = None) -> Stage2Model:
    """Stage 2 in eval mode. Raises as ``open_stage1``."""
    read = _read(folder, sha256)
    return load_stage2(parse_config(read.config, str(folder)), read.tensors, str(folder))


def open_vision(folder: Path) -> VisionTransformer:
    """The visual encoder of either stage. Raises as ``open_stage1``."""
    kind = parse_config(read_config(folder), str(folder)).kind
    return (open_stage2 if kind == "stage2" else open_stage1)(folder).vision


def _read(folder: Path, sha256: str | None) -> Checkpoint:
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32: the ViT's patches are a convolution
    read = read_checkpoint(folder)
    if sha256 not in (None, read.sha256):
        raise PreflightError(
            "a model has changed since this run began",
            item=str(folder / WEIGHTS_FILE),
            cause="it, or the config.json beside it, is not what the run's results are named after",
            remedy="run the same command again: what other weights change is made anew",
        )
    return read
