"""How z_t lies in the store: of each text its token features, row-major little-endian float32."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float


def pack(states: Float[np.ndarray, "token width"]) -> bytes:
    """Of one text; of width 0, nothing."""
    return np.ascontiguousarray(states, dtype="<f4").tobytes()


def unpack(
    packed: pa.ChunkedArray, rows: Sequence[int], lengths: Sequence[int]
) -> Float[np.ndarray, "token width"]:
    """The states at these rows, text after text, each of so many tokens; the only copy that is
    made. Of no rows, and where nothing was packed, the width is 0."""
    views = [*_views(packed, rows)]
    width = len(views[0]) // lengths[0] if views else 0
    states = np.empty((sum(lengths), width), dtype=np.float32)
    start = 0
    for view, length in zip(views, lengths, strict=True):
        states[start : start + length] = view.reshape(length, width)
        start += length
    return states


def means(packed: pa.ChunkedArray, lengths: Sequence[int]) -> Float[np.ndarray, "text width"]:
    """Of all texts, which have so many tokens, the mean of their states, in fp64; all states are
    never copied. Widths as of ``unpack``."""
    each = zip(_views(packed, range(len(packed))), lengths, strict=True)
    found = [view.reshape(length, -1).mean(axis=0, dtype=np.float64) for view, length in each]
    return np.array(found) if found else np.empty((0, 0))


def _views(packed: pa.ChunkedArray, rows: Iterable[int]) -> Iterator[np.ndarray]:
    return (np.frombuffer(packed[row].as_buffer(), dtype="<f4") for row in rows)
