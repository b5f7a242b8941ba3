"""Embeddings that were computed elsewhere: a folder of two Parquet files, gallery and queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.datasets.row_faults import RowFaults
from cir_core.errors import AnnotationError
from storage.sources.columns import Aliases, as_texts, read_bytes, read_parquet

FILES = {"gallery": "gallery.parquet", "queries": "queries.parquet"}
"""Below the folder, by what they hold."""

_VECTOR = ("vector", "embedding")
COLUMNS: dict[str, Aliases] = {
    "gallery": {"id": ("image", "image_id", "id"), "vector": _VECTOR},
    "queries": {"id": ("query", "query_id", "id"), "vector": _VECTOR},
}

UNIT_TOLERANCE = 2.0**-8
"""Of a length of 1: so much is it off at most where numbers were rounded to the 8 bits of bf16
after they were scaled. Vectors that were never scaled are off by far more."""

ROWS_AT_ONCE = 2**14
"""Rows whose lengths are computed together in fp64."""


@dataclass(frozen=True)
class VectorRows:
    """The rows of one file: distinct ids, each row's id as their number, its vector in fp32, and
    its place. ``faults`` has what is wrong with the others; their vectors hold no meaning."""

    file: Path
    ids: pa.DictionaryArray
    vectors: np.ndarray
    places: np.ndarray
    faults: RowFaults
    others: Sequence[str]


def read_embeddings(folder: Path) -> dict[str, VectorRows]:
    """Both files, ``gallery`` and ``queries``.

    A vector that is missing, of another width than the first, not finite, or not of unit length is
    a fault. Raises PreflightError when a file cannot be read, and AnnotationError for columns of
    other types.
    """
    return {name: _read(folder / file, COLUMNS[name]) for name, file in FILES.items()}


def _read(path: Path, aliases: Aliases) -> VectorRows:
    table, others = read_parquet(read_bytes(path, "a file of embeddings"), path, aliases)
    faults, places = RowFaults("row"), 1 + np.arange(table.num_rows)
    missing = {name: pc.is_null(table[name]).to_numpy() for name in aliases}
    for name, of_column in missing.items():
        faults.add(places[of_column], lambda _, name=name: f"{aliases[name][0]} is missing")  # type: ignore[misc]  # a default has no type
    there = ~(missing["id"] | missing["vector"])
    table, places = table.filter(pa.array(there)), places[there]
    ids, kind = as_texts(table["id"]), table.schema.field("vector").type
    if ids is None or not _is_vector(kind):
        raise AnnotationError(
            "a file of embeddings has columns of other types",
            item=str(path),
            cause=f"it holds ids as {table.schema.field('id').type}, vectors as {kind}",
            remedy="write ids as UTF-8 text (007 is not 7), and vectors as lists of floats",
        )
    vectors, sound = _matrix(table["vector"].combine_chunks(), places, faults)
    _require_unit(vectors, places[sound], faults)
    kept = pa.DictionaryArray.from_arrays(ids.indices.filter(pa.array(sound)), ids.dictionary)
    return VectorRows(path, kept, vectors, places[sound], faults, others)


def _is_vector(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind), pa.types.is_large_list(kind), pa.types.is_fixed_size_list(kind)
    return any(lists) and pa.types.is_floating(kind.value_type)


def _matrix(
    column: pa.Array, places: np.ndarray, faults: RowFaults
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors that have the first one's width, in fp32, and which these are. A number that is
    missing is NaN; one beyond fp32 is infinite."""
    widths = pc.list_value_length(column).to_numpy()
    width = int(widths[0]) if len(widths) else 0
    sound = widths == width
    other = widths[~sound]
    faults.add(
        places[~sound], lambda one: f"has {other[one]} numbers, and the first vector {width}"
    )
    flat = pc.list_flatten(column.filter(pa.array(sound))).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        numbers = flat.astype(np.float32, copy=False)
    return numbers.reshape(int(sound.sum()), width), sound


def _require_unit(vectors: np.ndarray, places: np.ndarray, faults: RowFaults) -> None:
    lengths = np.empty(len(vectors))
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        some = vectors[start : start + ROWS_AT_ONCE].astype(np.float64)
        lengths[start : start + ROWS_AT_ONCE] = np.sqrt(np.vecdot(some, some))
    infinite = ~np.isfinite(lengths)
    faults.add(places[infinite], lambda _: "holds a number that is NaN, infinite or missing")
    wrong = ~infinite & (np.abs(lengths - 1) > UNIT_TOLERANCE)
    faults.add(places[wrong], lambda one: f"has length {lengths[wrong][one]:.4g}, not 1")
