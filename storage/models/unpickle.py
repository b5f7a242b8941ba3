"""A script of its own: the tensors of a pickled checkpoint, as one safetensors file.

    python -I unpickle.py CHECKPOINT OUT.safetensors [MODEL_KEY ...]

Run by ``storage.models.pickles`` in a process apart, confined by ``confined.py``, because
restricted unpicklers have had holes. It imports nothing of this project. Before it opens the file,
it limits its memory, and has Python end it where it would do more than read.
Prints one line of JSON: {"model_key": ...}, or {"refused": why, "remedy": what to do}.
"""

import json
import os
import pickle
import resource
import sys
import warnings
import zipfile
import zlib
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors.torch import save_file

FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.spawn", "os.posix_spawn",
    "os.kill", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
    "os.chmod", "os.chown", "os.truncate", "os.utime", "os.putenv", "shutil.", "pty.",
    "ctypes.dlopen",
)  # fmt: skip
"""Python's events (sys.addaudithook) of which reading a checkpoint has none. The second line, where
no kernel holds the first."""

FORBIDDEN_CODE = 3
"""With which the process ends at one."""

ROOM = 2**30
"""Bytes beside what follows from the file's size: buffers, threads' stacks, Python's own."""

_SCALAR = np.float64(0).__reduce__()[0]

SCALARS: list[Any] = [
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 wrote it
    np.dtype,
    *(type(np.dtype(code)) for code in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")),
    *(type(np.dtype(code)) for code in ("f2", "f4", "f8")),
]
"""What a numpy number is made of. A training's best loss is often one, beside the weights."""

PLAIN = (bool, int, float, str, type(None), np.generic)
"""What may stand beside the tensors of a file that is a state dict itself."""

AGAIN = "get it from its publisher again, whole"
ALONE = "save the weights alone, with the code that wrote it: torch.save(model.state_dict(), path)"


class RefusedError(Exception):
    """The file is not what the caller expects; ``remedy`` says what would help."""

    def __init__(self, why: str, *, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def main(checkpoint: str, out: str, model_keys: list[str]) -> dict[str, str]:
    _limit_memory(os.path.getsize(checkpoint))
    sys.addaudithook(forbid)
    try:
        model_key, state = read_state(checkpoint, model_keys)
        save_file(_owned(state), out, metadata={"format": "pt"})
    except RefusedError as refusal:
        return {"refused": str(refusal), "remedy": refusal.remedy}
    except (MemoryError, RuntimeError) as error:  # the latter is torch's
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return {"refused": "it asks for more memory than its size explains", "remedy": AGAIN}
    return {"model_key": model_key}


def _limit_memory(size: int) -> None:
    """Of this process, for good, to what it has now and what a file of this size explains: itself,
    mapped or read, a dense copy of each tensor, and safetensors' copy of that."""
    if sys.platform == "linux":  # elsewhere nothing holds to it
        with open("/proc/self/statm") as status:
            now = int(status.read().split()[0]) * resource.getpagesize()
        most, hard = now + 4 * size + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (least, least))


def read_state(checkpoint: str, model_keys: list[str]) -> tuple[str, dict[str, torch.Tensor]]:
    """The state dict, of which no byte is damaged, and its key. Raises RefusedError."""
    model_key, state = _model(_load(checkpoint), model_keys)
    _require_sums(checkpoint, state)
    return model_key, state


def _load(checkpoint: str) -> object:
    try:
        # Memory-mapped, the optimiser's two thirds of a published file are never read.
        with torch.serialization.safe_globals(SCALARS):
            return torch.load(
                checkpoint, map_location="cpu", weights_only=True, mmap=_is_zip(checkpoint)
            )
    except pickle.UnpicklingError as error:
        why = f"it holds more than tensors, or is no pickle: {_reason(error)}"
        raise RefusedError(why, remedy=f"if you trust it, {ALONE}") from error
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes raise whatever they like
        raise RefusedError(f"its data is damaged: {_reason(error)}", remedy=AGAIN) from error


def _is_zip(checkpoint: str) -> bool:
    with open(checkpoint, "rb") as file:
        return file.read(2) == b"PK"


def _model(content: object, model_keys: list[str]) -> tuple[str, dict[str, torch.Tensor]]:
    """The state dict, and its key: the one of ``model_keys`` that is there; or else the only entry
    that is a state dict; or else the whole file, beside whose tensors plain values may stand."""
    if not isinstance(content, dict):
        raise RefusedError(f"it holds a {type(content).__name__}, not a dictionary", remedy=ALONE)
    keys = [key for key in model_keys if key in content]
    keys = keys or [key for key, value in content.items() if _is_state(value)]
    if len(keys) == 1:
        return str(keys[0]), _tensors(content[keys[0]], str(keys[0]))
    if not keys and any(isinstance(value, torch.Tensor) for value in content.values()):
        bare = {name: value for name, value in content.items() if not isinstance(value, PLAIN)}
        return "", _tensors(bare, "")
    found = ", ".join(sorted(str(key)[:80] for key in content)[:8])
    several = f"several state dicts ({', '.join(map(str, keys))})" if keys else "no state dict"
    raise RefusedError(f"it holds {several}; its keys are: {found}", remedy=ALONE)


def _is_state(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in value.items()
        )
    )


def _tensors(state: Any, key: str) -> dict[str, torch.Tensor]:
    if not isinstance(state, dict):
        raise RefusedError(f"{key} is a {type(state).__name__}, not a state dict", remedy=ALONE)
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            why = f"{str(name)[:80]} is a {type(tensor).__name__}, not a tensor"
            raise RefusedError(why, remedy=ALONE)
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise RefusedError(f"{name[:80]} is not a plain dense tensor", remedy=ALONE)
        if tensor.nbytes > tensor.untyped_storage().nbytes():  # a few bytes posing as gigabytes
            why = f"{name[:80]} claims {tensor.nbytes} bytes and has fewer"
            raise RefusedError(why, remedy=AGAIN)
    return state


def _require_sums(checkpoint: str, state: dict[str, torch.Tensor]) -> None:
    """Every storage that is used has the length and the CRC-32 of an entry of the archive, which
    torch itself never looks at. The others are not read. Raises RefusedError."""
    if not _is_zip(checkpoint):
        return  # torch's format before 1.6 has no sums
    with zipfile.ZipFile(checkpoint) as archive:
        sums = {(entry.file_size, entry.CRC) for entry in archive.infolist()}
    if not any(crc for _, crc in sums):
        return  # written with torch.serialization.set_crc32_options(False)
    storages = {
        tensor.untyped_storage().data_ptr(): (name, tensor.untyped_storage())
        for name, tensor in state.items()
    }
    for name, storage in storages.values():
        content = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        if (len(content), zlib.crc32(content.data)) not in sums:
            raise RefusedError(f"{name[:80]} is damaged: its checksum is another", remedy=AGAIN)


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


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """End this process, which an exception might not: code that did this could catch it."""
    if event.startswith(FORBIDDEN) or (event == "open" and _writes(*arguments)):
        os.write(2, f"{event} is forbidden while a checkpoint is read\n".encode())
        os._exit(FORBIDDEN_CODE)


def _writes(_path: object, _mode: object, flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


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
