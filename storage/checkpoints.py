"""A model on disk: a folder with ``config.json`` and ``model.safetensors``.

Storage knows names and bytes; which names and shapes a model has is the core's to say.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cir_core.errors import CheckpointRefused, NonFiniteError
from storage.atomic import commit, commit_text, sha256_of

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write both files atomically, weights first; returns the weights' sha256.

    ``dtype`` is the precision on disk; models compute in fp32 whatever it is. Raises NonFiniteError
    (and writes nothing) when a weight is too large for it.
    """
    stored = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()
    }
    _require_fit(tensors, stored, folder)

    def write(temporary: Path) -> None:
        save_file(stored, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors keeps its files to their owner

    digest = commit(folder / WEIGHTS_FILE, write)
    commit_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    return digest


def _require_fit(tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor], folder: Path) -> None:
    """Rounding must not make infinities: the written model would be refused when it is read."""
    overflowing = [
        f"{name} ({kept.dtype})"
        for name, kept in stored.items()
        if kept.dtype != tensors[name].dtype and kept.isinf().sum() != tensors[name].isinf().sum()
    ]
    if overflowing:
        raise NonFiniteError(
            "a model's weights are too large for the precision on disk",
            item=str(folder),
            cause=f"{len(overflowing)} tensors: {', '.join(overflowing[:5])}",
            remedy="write it in fp32",
        )


def read_config(folder: Path) -> dict[str, Any]:
    """Raises CheckpointRefused when the folder is not a model."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointRefused(
            "no model at this path",
            item=str(folder),
            cause=f"{CONFIG_FILE} is missing or unreadable ({error})",
            remedy="pass a folder written by `cir-pipeline convert` or `cir-pipeline train`",
        ) from error
    if not isinstance(config, dict):
        raise CheckpointRefused(
            f"{CONFIG_FILE} is not a JSON object",
            item=str(folder),
            remedy="convert the model again",
        )
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors in fp32. Raises CheckpointRefused when the file is unreadable."""
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointRefused(
            "a model's weights cannot be read",
            item=str(folder / WEIGHTS_FILE),
            cause=str(error),
            remedy="convert or train the model again; a git-lfs pointer file is a common cause",
        ) from error
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def model_sha256(folder: Path) -> str:
    """The identity of a model in every fingerprint: its weights, and its config, which says what
    shapes cannot (heads, vocabulary). Raises CheckpointRefused when one of them is missing."""
    config = json.dumps(read_config(folder), sort_keys=True)
    try:
        weights = sha256_of(folder / WEIGHTS_FILE)
    except OSError as error:
        raise CheckpointRefused(
            "a model has no weights", item=str(folder / WEIGHTS_FILE), cause=str(error)
        ) from error
    return hashlib.sha256(f"{config}{weights}".encode()).hexdigest()
