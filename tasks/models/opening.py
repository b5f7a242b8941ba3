"""Models from and to their folders on disk, and texts as their tokens.

A model folder holds ``config.json`` (kind and sizes) and ``model.safetensors``. ``save_model``
writes one; ``open_retriever`` and ``open_reranker`` read it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from cir_core.errors import CheckpointRefused, PreflightError
from cir_core.families import (
    load_encoder,
    load_model,
    load_reranker,
    load_retriever,
    parse_config,
    reranker_config,
    retriever_config,
)
from cir_core.ports import ImageEncoder, Reranker, RerankerConfig, Retriever, RetrieverConfig
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.types import Precision
from storage.models.folders import Checkpoint, read_checkpoint, read_config, write_checkpoint
from storage.models.weights import WEIGHTS_FILE

Trained = TypeVar("Trained", Stage1Model, Stage2Model)
Castable = TypeVar("Castable", ImageEncoder, Retriever)


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


def open_retriever(
    folder: Path,
    *,
    sha256: str | None = None,
    encoder: Precision = "fp32",
    precision: Precision = "fp32",
) -> Retriever:
    """Stage 1, or a pre-trained base, in eval mode, on the CPU; its ``encoder``, and what reads
    texts, hold their weights in the precision that is said for each, and nowhere else.

    ``sha256`` (of ``model_sha256``) is the model that results will be named after: any other is
    refused. Raises CheckpointRefused for the wrong stage, tensors that are missing, extra or
    misshapen, an unreadable folder, or weights that are not those of their record; NonFiniteError
    for NaN or infinity; PreflightError when the folder no longer holds the model of that name.
    """
    read = _read(folder, sha256)
    retriever = load_retriever(read.config, read.tensors, str(folder))
    _cast(retriever.encoder, encoder)
    return _cast(retriever, precision)


def open_reranker(
    folder: Path, *, sha256: str | None = None, encoder: Precision = "fp32"
) -> Reranker:
    """Stage 2 in eval mode, as ``open_retriever``; all but its ``encoder`` is in fp32, since a
    scorer takes what it needs of it in its own precision."""
    read = _read(folder, sha256)
    reranker = load_reranker(read.config, read.tensors, str(folder))
    _cast(reranker.encoder, encoder)
    return reranker


def open_encoder(folder: Path, *, precision: Precision = "fp32") -> ImageEncoder:
    """That of a model of either stage. Raises as ``open_retriever``."""
    read = _read(folder, None)
    return _cast(load_encoder(read.config, read.tensors, str(folder)), precision)


def open_stage1(folder: Path, *, sha256: str | None = None) -> Stage1Model:
    """The model that we train. Raises as ``open_retriever``, and CheckpointRefused for one of
    another family."""
    return _trained(folder, sha256, retriever_config, Stage1Model)


def open_stage2(folder: Path, *, sha256: str | None = None) -> Stage2Model:
    """The model that we train. Raises as ``open_stage1``."""
    return _trained(folder, sha256, reranker_config, Stage2Model)


def read_retriever_config(folder: Path) -> RetrieverConfig:
    """Raises CheckpointRefused."""
    return retriever_config(read_config(folder), str(folder))


def read_stage1_config(folder: Path) -> Stage1Config:
    """Of the model that we train. Raises as ``open_stage1``."""
    config = read_retriever_config(folder)
    if not isinstance(config, Stage1Config):
        raise _not_trained(folder, config.kind)
    return config


def read_reranker_config(folder: Path) -> RerankerConfig:
    """Raises CheckpointRefused."""
    return reranker_config(read_config(folder), str(folder))


def read_seeing_flops(folder: Path) -> int:
    """Of one image, by the encoder of a model of either stage. Raises CheckpointRefused."""
    flops: int = parse_config(read_config(folder), str(folder)).seeing_flops()
    return flops


def _cast(module: Castable, precision: Precision) -> Castable:
    return module if precision == "fp32" else module.cast(precision)


def _trained(
    folder: Path,
    sha256: str | None,
    parse: Callable[[Mapping[str, Any], str], Any],
    wanted: type[Trained],
) -> Trained:
    read = _read(folder, sha256)
    config = parse(read.config, str(folder))
    model = load_model(config, read.tensors, str(folder))
    if not isinstance(model, wanted):
        raise _not_trained(folder, config.kind)
    return model


def _not_trained(folder: Path, kind: str) -> CheckpointRefused:
    return CheckpointRefused(
        "a model is of a family that is not trained here",
        item=str(folder),
        cause=f"its config.json says kind {kind!r}",
    )


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
