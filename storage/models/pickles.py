"""Weight files as others write and read them: pickles, and safetensors.

A pickle is a program. One that others wrote is opened with torch's restricted loader only, in a
short-lived, confined process that hands back nothing but tensors, so that even a hole in that
loader does not reach this process, a network, or a file.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cir_core.errors import CheckpointRefused, OutOfSpace
from storage.atomic import commit

SECONDS = 1800
"""Far above a 3.5 GB file on a slow disk; what takes longer, by the clock or by the processor, is
an attack or a dead disk."""

OUT_OF_TIME = signal.SIGXCPU
"""What ends a process whose processor time is used up."""

_CONFINED, _SCRIPT = (Path(__file__).with_name(name) for name in ("confined.py", "unpickle.py"))
_BESIDE = 2**26
"""Bytes that may be written beside the tensors, each once, or twice where two share it."""

_MOST_TOLD = 4096
"""Bytes of what the process says that are looked at."""
_LFS_POINTER = b"version https://git-lfs"
_DISK_FULL = "os error 28"  # how safetensors words ENOSPC


@dataclass(frozen=True)
class PickledModel:
    """A state dict, and the key it had in its file ("" when the file is the state dict)."""

    model_key: str
    tensors: dict[str, Tensor]


def read_pickle(path: Path, model_keys: Sequence[str] = ()) -> PickledModel:
    """The state dict of a file written by ``torch.save``: under the one of ``model_keys`` that it
    has, or else the only entry that is one, or else the whole file.

    No code of the file is executed. Raises CheckpointRefused when the file is missing, cut off,
    damaged (by the archive's own checksums), something else, holds more than tensors and plain
    numbers, or has no state dict, or several.
    """
    _require_checkpoint(path)
    with tempfile.TemporaryDirectory(prefix="cir-unpickle-") as folder:
        out = Path(folder) / "model.safetensors"
        answer = _unpickle(path, out, model_keys)
        if "refused" in answer:
            raise _refused(path, answer["refused"], answer["remedy"])
        return PickledModel(answer["model_key"], read_safetensors(out))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors as they are. Raises CheckpointRefused when the file is unreadable.

    The library checks every offset against the file and caps the header, so a bogus header is
    refused before anything of its size is allocated.
    """
    try:
        if _head(path).startswith(_LFS_POINTER):
            raise _refused(path, "it is a git-lfs pointer", "fetch the file itself: git lfs pull")
        return load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _refused(path, f"no readable safetensors file: {error}") from error


def write_pickle(path: Path, content: Mapping[str, Any]) -> str:
    """``torch.save`` that appears whole or not at all; returns the file's sha256.

    The same content gives the same bytes whatever the file is called. A tensor that is a view is
    written with all that it is a view of. Raises as ``commit``.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch writes its name into the file
            _save(content, file)

    return commit(path, write)


def _save(content: Mapping[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(dict(content), file)
    except RuntimeError as error:  # what torch makes of a failed write
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _require_checkpoint(path: Path) -> None:
    """Cheap refusals with a clear reason, before a process is started."""
    try:
        head = _head(path)
        if head.startswith(_LFS_POINTER):
            raise _refused(path, "it is a git-lfs pointer", "fetch the file itself: git lfs pull")
        if not head.startswith(b"PK"):
            if not head.startswith(b"\x80"):  # torch's format before 1.6 is a bare pickle
                raise _refused(path, "it is neither a torch archive nor a pickle")
            return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _require_sums(archive, entries)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _refused(path, f"the archive is truncated or damaged: {error}") from error
    except OSError as error:
        raise _refused(path, f"the file cannot be read: {error}") from error
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise _refused(path, "it is a zip archive, but not one of torch.save")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _refused(path, "its archive is compressed, which torch.save never does")


def _require_sums(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Of the pickle and the small entries about it; those of tensors are summed where they are
    read. Raises BadZipFile."""
    if any(entry.CRC for entry in entries):  # torch can be told to leave sums out
        for entry in entries:
            if "/data/" not in entry.filename and entry.compress_type == zipfile.ZIP_STORED:
                archive.read(entry)


def _unpickle(path: Path, out: Path, model_keys: Sequence[str]) -> dict[str, str]:
    with tempfile.TemporaryFile() as told:  # not a pipe: nothing limits what goes through one
        code = _run_confined(path, out, model_keys, told)
        told.seek(-min(told.tell(), _MOST_TOLD), os.SEEK_END)
        last = (told.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    if code == 0:
        answer: dict[str, str] = json.loads(last)
        return answer
    if _DISK_FULL in last:
        raise OutOfSpace(
            "the disk is full",
            item=str(out.parent),
            remedy="point TMPDIR to a folder with as much room as the checkpoint has bytes",
        )
    if code == -OUT_OF_TIME:
        raise _refused(path, f"reading it took more than {SECONDS} s of processor time")
    raise _refused(path, f"the reading process ended with code {code}: {last[:200]}")


def _run_confined(path: Path, out: Path, model_keys: Sequence[str], told: IO[bytes]) -> int:
    """The process's exit code. ``told`` gets all that it says, its answer at the end."""
    most = 2 * path.stat().st_size + _BESIDE
    confined = [sys.executable, "-I", str(_CONFINED), str(out.parent), str(most), str(SECONDS)]
    command = [*confined, str(_SCRIPT), str(path.resolve()), str(out), *model_keys]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TORCH_")  # one of them switches the restricted loader off
    }
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            env=environment,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise _refused(path, f"reading it took more than {SECONDS} s") from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _refused(
    path: Path, cause: str, remedy: str = "get it from its publisher again, whole"
) -> CheckpointRefused:
    return CheckpointRefused(
        "a checkpoint cannot be read",
        item=str(path),
        cause=cause,
        remedy=remedy,
    )
