"""Arrays as ``.npy`` files: mapped into memory, so that only the rows that are read are loaded."""

from pathlib import Path

import numpy as np

ARRAY_SUFFIX = ".npy"


def write_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:  # given a name, numpy would append its suffix
        np.save(file, array, allow_pickle=False)


def map_array(path: Path) -> np.ndarray:
    """The array, read-only; its bytes are read where and when rows are used."""
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped
