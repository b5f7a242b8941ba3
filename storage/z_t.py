"""How z_t lies in the store: of each text its token features, row-major little-endian float32."""

from collections.abc import Sequence

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
    views = [np.frombuffer(packed[row].as_buffer(), dtype="<f4") for row in rows]
    width = len(views[0]) // lengths[0] if views else 0
    states = np.empty((sum(lengths), width), dtype=np.float32)
    start = 0
    for view, length in zip(views, lengths, strict=True):
        states[start : start + length] = view.reshape(length, width)
        start += length
    return states
