"""Arrays as ``.npy`` files: mapped into memory, so that only the rows that are read are loaded."""

import time
from pathlib import Path

import numpy as np

from storage.atomic import disk_errors, sha256_of
from storage.tables import damaged

ARRAY_SUFFIX = ".npy"

_Version = tuple[int, int, int, int, int]

SETTLED = 1_000_000_000
"""Nanoseconds. Of a younger file a further write may leave the same times: they tick in some
milliseconds."""

_hashed: dict[_Version, str] = {}
"""Of this process: kept image tokens are 27 GB at Fashion-IQ's size, and every stage asks."""


def write_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:  # given a name, numpy would append its suffix
        np.save(file, array, allow_pickle=False)


def map_array(path: Path, *, sha256: str) -> np.ndarray:
    """The array, read-only; its bytes are read where and when rows are used.

    Raises StoreCorrupt when the file's bytes are others, or it cannot be read, and as
    ``disk_errors``.
    """
    try:
        with disk_errors(path):
            if sha256_once(path) != sha256:
                raise damaged(path, "its bytes are not those that were written")
            mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    return mapped


def sha256_once(path: Path) -> str:
    """The file's sha256; within a process read once of the same, unchanged file."""
    version = _version(path)
    if version in _hashed:
        return _hashed[version]
    digest = sha256_of(path)
    if _version(path) == version and time.time_ns() - version[-1] > SETTLED:
        _hashed[version] = digest
    return digest


def _version(path: Path) -> _Version:
    """Another one after every write to a settled file."""
    status = path.stat()
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip
