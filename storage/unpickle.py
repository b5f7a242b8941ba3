"""A script of its own: the tensors of a pickled checkpoint, as one safetensors file.

    python -I unpickle.py CHECKPOINT OUT.safetensors [MODEL_KEY ...]

Run by ``storage.pickles`` in a process apart, because restricted unpicklers have had holes. It
imports nothing of this project, and forbids itself processes and network before it opens the file.
Prints one line of JSON: {"model_key": ...}, or {"refused": why}.
"""

import json
import pickle
import sys
import warnings
from typing import Any, NoReturn

import torch
from safetensors.torch import save_file

FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.spawn",
    "os.posix_spawn",
)


class RefusedError(Exception):
    """The file is not what the caller expects."""


def main(checkpoint: str, out: str, model_keys: list[str]) -> dict[str, str]:
    sys.addaudithook(_forbid)
    try:
        model_key, state = _model(_load(checkpoint), model_keys)
        save_file(_owned(state), out, metadata={"format": "pt"})
    except RefusedError as refusal:
        return {"refused": str(refusal)}
    return {"model_key": model_key}


def _load(checkpoint: str) -> object:
    with open(checkpoint, "rb") as file:
        is_zip = file.read(2) == b"PK"
    try:
        # Memory-mapped, the optimiser's two thirds of a published file are never read.
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise RefusedError(
            f"it holds more than tensors, or is no pickle: {_reason(error)}"
        ) from error
    except Exception as error:  # hostile bytes raise whatever they like
        raise RefusedError(f"its data is damaged: {_reason(error)}") from error


def _model(content: object, model_keys: list[str]) -> tuple[str, dict[str, torch.Tensor]]:
    """The state dict under the one model key that the file has; without keys, the whole file."""
    if not isinstance(content, dict):
        raise RefusedError(f"it holds a {type(content).__name__}, not a dictionary")
    if not model_keys:
        return "", _tensors(content)
    present = [key for key in model_keys if key in content]
    if len(present) != 1:
        wanted, found = " or ".join(model_keys), ", ".join(sorted(map(str, content))[:8])
        raise RefusedError(f"it has not exactly one of the keys {wanted}; its keys are: {found}")
    state = content[present[0]]
    if not isinstance(state, dict):
        raise RefusedError(f"{present[0]} is a {type(state).__name__}, not a state dict")
    return present[0], _tensors(state)


def _tensors(state: dict[Any, Any]) -> dict[str, torch.Tensor]:
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise RefusedError(f"{str(name)[:80]} is a {type(tensor).__name__}, not a tensor")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise RefusedError(f"{name[:80]} is not a plain dense tensor")
        if tensor.nbytes > tensor.untyped_storage().nbytes():  # a few bytes posing as gigabytes
            raise RefusedError(f"{name[:80]} claims {tensor.nbytes} bytes and has fewer")
    return state


def _owned(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors with storage of their own, as safetensors wants them."""
    seen: set[int] = set()
    owned = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        alone = storage.data_ptr() not in seen and storage.nbytes() == tensor.nbytes
        seen.add(storage.data_ptr())
        dense = tensor.detach().contiguous()
        owned[name] = dense if alone else dense.clone()
    return owned


def _forbid(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        raise RuntimeError(f"{event} is forbidden while a checkpoint is read")


def _reason(error: Exception) -> str:
    """One line. torch wraps the reason in advice to switch its protection off; what it wrapped is
    the context."""
    lines = str(error.__context__ or error).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)[:200]


def _run() -> NoReturn:
    warnings.simplefilter("ignore")
    answer = main(sys.argv[1], sys.argv[2], sys.argv[3:])
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.exit(0)


if __name__ == "__main__":
    _run()
