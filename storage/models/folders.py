"""A model on disk: a folder with ``config.json`` and weights.

Storage knows names and bytes; which names and shapes a model has is the core's to say. The weights
carry the sha256 of their tensors, so that a load notices a flipped bit. It stands in their own
header: both appear in one move, and nobody edits it by hand, as people do a ``config.json``.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cir_core.errors import CheckpointRefused, NonFiniteError
from storage.atomic import commit, commit_text
from storage.models.weights import (
    WEIGHTS_FILE,
    add_tensor,
    opened,
    sha256_of_tensors,
    sha256_of_weights,
    weight_files,
)

CONFIG_FILE = "config.json"

ATTACHED = "attached"
"""In a config: texts that are part of it and too long to stand in it. On disk each is a file beside
it, and its sha256 stands here; as read, its content."""

LINKED = "weights"
"""In a config: ``RECORD`` of weights that others wrote, whose header is not ours."""

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
    """Write both files atomically, weights first, and those that the config attaches between them;
    returns the sha256 of the weights' file.

    ``dtype`` is the precision on disk; models compute in fp32 whatever it is. Raises NonFiniteError
    (and writes nothing) when a weight is too large for it.
    """
    stored = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()
    }
    _require_fit(tensors, stored, folder)

    record = {RECORD: sha256_of_tensors(stored)}

    def write(temporary: Path) -> None:
        save_file(stored, temporary, metadata=record)
        temporary.chmod(0o644)  # safetensors keeps its files to their owner

    digest = commit(folder / WEIGHTS_FILE, write)
    _write_config(folder, config)
    return digest


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """After the files that it attaches, if any."""
    attached = config.get(ATTACHED, {})
    for name, content in attached.items():
        commit_text(folder / name, content)
    named = {name: _sha256_of_text(content) for name, content in attached.items()}
    written = {**config, ATTACHED: named} if named else config
    commit_text(folder / CONFIG_FILE, json.dumps(written, indent=2) + "\n")


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


def write_linked(folder: Path, config: Mapping[str, Any], source: Path) -> str:
    """A model whose weights stay as others wrote them in the folder ``source``: the files are
    linked where the file system can, and copied elsewhere. The config records the sha256 of their
    tensors, which is returned. Files that it attaches are written, itself last. Raises as
    ``read_shapes``."""
    digest = sha256_of_weights(source)
    for name, path in weight_files(source).items():
        commit(folder / name, partial(_link, path.resolve()))
    _write_config(folder, {**config, LINKED: digest})
    return digest


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def model_files(folder: Path) -> list[str]:
    """The names of all that is read of a model. Raises CheckpointRefused when the folder is not a
    model."""
    attached = _read_json(folder).get(ATTACHED)
    return [CONFIG_FILE, *weight_files(folder), *(attached if isinstance(attached, dict) else ())]


def read_config(folder: Path) -> dict[str, Any]:
    """With the texts that are attached to it. Raises CheckpointRefused when the folder is not a
    model, or when one of these is not what the config names."""
    config = _read_json(folder)
    if isinstance(named := config.get(ATTACHED), dict):
        return config | {ATTACHED: {name: _attached(folder, name, named[name]) for name in named}}
    return config


def _attached(folder: Path, name: str, sha256: str) -> str:
    try:
        content = (folder / Path(name).name).read_bytes().decode()
    except (OSError, ValueError) as error:
        found = str(error)
    else:
        found = _sha256_of_text(content)
        if found == sha256:
            return content
        found = f"its sha256 is {found}, and {sha256} was converted"
    raise CheckpointRefused(
        "a file of a model has changed since it was converted",
        item=str(folder / name),
        cause=found,
        remedy="put the file back, or convert the model again: its results then have another name",
    )


def _sha256_of_text(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _read_json(folder: Path) -> dict[str, Any]:
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
    with opened(folder) as weights:
        for name in sorted(weights.keys()):
            stored = weights.get_tensor(name).clone()
            add_tensor(digest, name, stored)
            tensors[name] = stored.to(torch.float32)
        _require_recorded(weights, config, digest.hexdigest(), folder)
    return Checkpoint(config, _identity(config, digest.hexdigest()), tensors)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors in fp32. Raises as ``read_checkpoint``."""
    return read_checkpoint(folder).tensors


def model_sha256(folder: Path) -> str:
    """The identity of a model in every fingerprint: its tensors, and its config, which says what
    shapes cannot (heads, vocabulary). What is loaded later must still have this name: see
    ``Checkpoint``. Raises CheckpointRefused when a file is missing or unreadable."""
    return read_identity(folder).sha256


def read_identity(folder: Path) -> ModelIdentity:
    """``model_sha256`` and the config that is in it. Raises as it does."""
    config = read_config(folder)
    return ModelIdentity(config, _identity(config, sha256_of_weights(folder)))


def check_identity(folder: Path) -> ModelIdentity:
    """``read_identity`` of weights that have their record. Raises as ``read_checkpoint``."""
    config, digest = read_config(folder), sha256_of_weights(folder)
    with opened(folder) as weights:
        _require_recorded(weights, config, digest, folder)
    return ModelIdentity(config, _identity(config, digest))


def _identity(config: Mapping[str, Any], tensors: str) -> str:
    return hashlib.sha256(f"{json.dumps(config, sort_keys=True)}{tensors}".encode()).hexdigest()


def _require_recorded(weights: Any, config: Mapping[str, Any], found: str, folder: Path) -> None:
    """A folder of an earlier version has no record, and is believed."""
    recorded = config.get(LINKED) or (weights.metadata() or {}).get(RECORD, found)
    if recorded != found:
        raise CheckpointRefused(
            "a model's weights are damaged",
            item=str(folder / WEIGHTS_FILE),
            cause=f"the sha256 of its tensors is {found}, and {recorded} was written",
            remedy="copy the folder here again from where it was made, or convert or train the "
            "model again",
        )
