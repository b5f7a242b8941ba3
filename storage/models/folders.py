"""A model on disk: a folder with ``config.json`` and ``model.safetensors``.

Storage knows names and bytes; which names and shapes a model has is the core's to say. The weights
carry the sha256 of their tensors, so that a load notices a flipped bit. It stands in their own
header: both appear in one move, and nobody edits it by hand, as people do a ``config.json``.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cir_core.errors import CheckpointRefused, NonFiniteError
from storage.atomic import commit, commit_text

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

RECORD = "sha256"
"""Of the tensors, in the header of their file. The only entry there: safetensors writes several in
random order, and the same model must give the same bytes."""


@dataclass(frozen=True)
class ModelIdentity:
    """A model's config, and the name of exactly this config with the tensors beside it."""

    config: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class Checkpoint(ModelIdentity):
    """A model folder as it was read, with the very tensors that are named (fp32, whatever the
    precision on disk)."""

    tensors: dict[str, Tensor]


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write both files atomically, weights first; returns the sha256 of the weights' file.

    ``dtype`` is the precision on disk; models compute in fp32 whatever it is. Raises NonFiniteError
    (and writes nothing) when a weight is too large for it.
    """
    stored = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()
    }
    _require_fit(tensors, stored, folder)

    record = {RECORD: _sha256(stored)}

    def write(temporary: Path) -> None:
        save_file(stored, temporary, metadata=record)
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


def read_checkpoint(folder: Path) -> Checkpoint:
    """Config and tensors, hashed from the very bytes that are returned.

    A mapped file changes under its reader, so each tensor is copied before it is hashed; one at a
    time, so that memory holds the model once. Raises CheckpointRefused when a file is missing or
    unreadable, or when the tensors are not those that the file's record names.
    """
    config, tensors, digest = read_config(folder), {}, hashlib.sha256()
    with _opened(folder) as weights:
        for name in sorted(weights.keys()):
            stored = weights.get_tensor(name).clone()
            _update(digest, name, stored)
            tensors[name] = stored.to(torch.float32)
        _require_recorded(weights, digest.hexdigest(), folder)
    return Checkpoint(config, _identity(config, digest.hexdigest()), tensors)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors in fp32. Raises as ``read_checkpoint``."""
    return read_checkpoint(folder).tensors


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Each tensor's shape, from the file's header alone. Raises CheckpointRefused when the file is
    missing or unreadable."""
    with _opened(folder) as weights:
        names = weights.keys()
        return {name: tuple(weights.get_slice(name).get_shape()) for name in names}


def differing_tensors(folder: Path, other: Path, prefix: str) -> list[str]:
    """Names with this prefix that one model lacks, or whose values are not equal in fp32; two
    tensors at a time are in memory. Raises as ``read_shapes``."""
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
        raise CheckpointRefused(
            "a model's weights cannot be read",
            item=str(folder / WEIGHTS_FILE),
            cause=str(error),
            remedy="convert or train the model again; a git-lfs pointer file is a common cause",
        ) from error


def model_sha256(folder: Path) -> str:
    """The identity of a model in every fingerprint: its tensors, and its config, which says what
    shapes cannot (heads, vocabulary). What is loaded later must still have this name: see
    ``Checkpoint``. Raises CheckpointRefused when a file is missing or unreadable."""
    return read_identity(folder).sha256


def read_identity(folder: Path) -> ModelIdentity:
    """``model_sha256`` and the config that is in it. Raises as it does."""
    config, digest = read_config(folder), hashlib.sha256()
    with _opened(folder) as weights:
        for name in sorted(weights.keys()):
            _update(digest, name, weights.get_tensor(name))
    return ModelIdentity(config, _identity(config, digest.hexdigest()))


def _identity(config: Mapping[str, Any], tensors: str) -> str:
    return hashlib.sha256(f"{json.dumps(config, sort_keys=True)}{tensors}".encode()).hexdigest()


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        _update(digest, name, tensors[name])
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    """Add a tensor's name, type, shape and bytes."""
    digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _require_recorded(weights: Any, found: str, folder: Path) -> None:
    """A folder of an earlier version has no record, and is believed."""
    recorded = (weights.metadata() or {}).get(RECORD, found)
    if recorded != found:
        raise CheckpointRefused(
            "a model's weights are damaged",
            item=str(folder / WEIGHTS_FILE),
            cause=f"the sha256 of its tensors is {found}, and {recorded} was written",
            remedy="copy the folder here again from where it was made, or convert or train the "
            "model again",
        )
