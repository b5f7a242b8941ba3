"""Files that appear whole or not at all."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cir_core.errors import OutOfSpace, PreflightError


def commit(path: Path, write: Callable[[Path], None]) -> str:
    """Let ``write`` fill a temporary neighbour of ``path``, make it durable, and move it there.

    Returns the sha256 of the bytes. Whatever stops this before the rename leaves ``path`` as it
    was, and nothing half-written stays behind. Raises OutOfSpace when the disk is full, and
    PreflightError when the folder cannot be made.
    """
    make_folder(path.parent)
    for leftover in path.parent.glob(f".{path.name}.*.tmp*"):  # of a killed writer
        leftover.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        digest = sha256_of(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except Exception as error:  # a full disk has many types; all else passes on
        if _is_full(error):
            raise _full(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def make_folder(path: Path) -> None:
    """Raises PreflightError when there is none and none can be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise PreflightError(
            "a folder cannot be made",
            item=str(path),
            cause=str(error),
            remedy="name another folder, or free this name",
        ) from error


def commit_text(path: Path, text: str) -> str:
    """``commit`` of a UTF-8 text."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return commit(path, write)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_full(error: Exception) -> bool:
    """DuckDB and safetensors raise types of their own, and keep only the words."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return any(os.strerror(number) in str(error) for number in numbers)


def _full(path: Path) -> OutOfSpace:
    free = shutil.disk_usage(path.parent).free
    return OutOfSpace(
        "the disk is full",
        item=str(path),
        cause=f"{free / 2**20:.0f} MiB are free there",
        remedy="free space or move the store with --store, then run the same command again",
    )
