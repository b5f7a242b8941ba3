"""A model on disk: a folder with ``config.json`` and ``model.safetensors``.

Storage knows names and bytes; which names and shapes a model has is the core's to say.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
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
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8-sig"))
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
        raise _unreadable(folder, error) from error
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Each tensor's shape, from the file's header alone. Raises as ``read_tensors``."""
    with _opened(folder) as weights:
        names = weights.keys()
        return {name: tuple(weights.get_slice(name).get_shape()) for name in names}


def differing_tensors(folder: Path, other: Path, prefix: str) -> list[str]:
    """Names with this prefix that one model lacks, or whose values are not equal in fp32; two
    tensors at a time are in memory. Raises as ``read_tensors``."""
    with _opened(folder) as ours, _opened(other) as theirs:
        names = {name for name in (*ours.keys(), *theirs.keys()) if name.startswith(prefix)}
        shared = names & {*ours.keys()} & {*theirs.keys()}
        equal = {
            name
            for name in shared
            if torch.equal(ours.get_tensor(name).float(), theirs.get_tensor(name).float())
        }
    return sorted(names - equal)


@contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            yield weights
    except (OSError, SafetensorError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> CheckpointRefused:
    return CheckpointRefused(
        "a model's weights cannot be read",
        item=str(folder / WEIGHTS_FILE),
        cause=str(error),
        remedy="convert or train the model again; a git-lfs pointer file is a common cause",
    )


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
