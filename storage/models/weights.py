"""A model's weights on disk: ``model.safetensors``, or, where others wrote them in several files,
their index and these; read as one, and named by the bytes of their tensors."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cir_core.errors import CheckpointRefused

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""Of weights in several files: its ``weight_map`` says which tensor is in which."""


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Each tensor's shape, from the file's header alone. Raises CheckpointRefused when the file is
    missing or unreadable."""
    with opened(folder) as weights:
        names = weights.keys()
        return {name: tuple(weights.get_slice(name).get_shape()) for name in names}


def differing_tensors(folder: Path, other: Path, prefix: str) -> list[str]:
    """Names with this prefix that one model lacks, or whose values are not equal in fp32; two
    tensors at a time are in memory. Raises as ``read_shapes``."""
    with opened(folder) as ours, opened(other) as theirs:
        names = {name for name in (*ours.keys(), *theirs.keys()) if name.startswith(prefix)}
        shared = names & {*ours.keys()} & {*theirs.keys()}
        equal = {
            name
            for name in shared
            if torch.equal(ours.get_tensor(name).float(), theirs.get_tensor(name).float())
        }
    return sorted(names - equal)


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """All weights of a model folder, as safetensors opens a file of them. Raises CheckpointRefused
    when a file is missing or unreadable, also for what the reader meets of that."""
    try:
        with ExitStack() as files:
            yield _open_shards(folder, files)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _unreadable(folder / WEIGHTS_FILE, str(error)) from error


def _unreadable(path: Path, cause: str) -> CheckpointRefused:
    return CheckpointRefused(
        "a model's weights cannot be read",
        item=str(path),
        cause=cause,
        remedy="convert or train the model again; a git-lfs pointer file is a common cause",
    )


def weight_files(folder: Path) -> dict[str, Path]:
    """By name; several with their index. Raises CheckpointRefused for an index that cannot be read,
    or that names other files than weights beside it."""
    if not _is_sharded(folder):
        return {WEIGHTS_FILE: folder / WEIGHTS_FILE}
    names = {INDEX_FILE, *_weight_map(folder).values()}
    return {name: folder / name for name in sorted(names)}


def _is_sharded(folder: Path) -> bool:
    return (folder / INDEX_FILE).exists() and not (folder / WEIGHTS_FILE).exists()


def _weight_map(folder: Path) -> dict[str, str]:
    path = folder / INDEX_FILE
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        strangers = {name for name in found.values() if not _is_weights(name)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(path, f"it is no index of weights: {error!r}") from error
    if strangers:
        raise _unreadable(path, f"it names what is no file of weights beside it: {strangers}")
    return found


def _is_weights(name: str) -> bool:
    return Path(name).name == name and name.endswith(".safetensors")


def _open_shards(folder: Path, files: ExitStack) -> Any:
    if not _is_sharded(folder):
        return files.enter_context(safe_open(folder / WEIGHTS_FILE, framework="pt"))
    file_of = _weight_map(folder)
    shards = {
        file: files.enter_context(safe_open(folder / file, framework="pt"))
        for file in sorted({*file_of.values()})
    }
    return _Shards({name: shards[file] for name, file in file_of.items()})


class _Shards:
    """Several files, read as one."""

    def __init__(self, shards: Mapping[str, Any]) -> None:
        self._shards = shards

    def keys(self) -> list[str]:
        return list(self._shards)

    def get_tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._shards[name].get_tensor(name)
        return tensor

    def get_slice(self, name: str) -> Any:
        return self._shards[name].get_slice(name)

    def metadata(self) -> dict[str, str]:
        return {}


def sha256_of_weights(folder: Path) -> str:
    """As ``sha256_of_tensors``, one tensor at a time. Raises as ``opened``."""
    digest = hashlib.sha256()
    with opened(folder) as weights:
        for name in sorted(weights.keys()):
            add_tensor(digest, name, weights.get_tensor(name))
    return digest.hexdigest()


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes, as they are on disk."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        add_tensor(digest, name, tensors[name])
    return digest.hexdigest()


def add_tensor(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    """Add a tensor's name, type, shape and bytes."""
    digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
