"""Where texts of different lengths lie when they are packed one after another."""

import numpy as np
from jaxtyping import Int


def starts_of(lengths: Int[np.ndarray, " text"]) -> Int[np.ndarray, " text"]:
    """The first row of each text, when one follows the other."""
    return np.cumsum(lengths) - lengths


def rows_of(
    starts: Int[np.ndarray, " text"], lengths: Int[np.ndarray, " text"]
) -> Int[np.ndarray, " token"]:
    """The rows of all tokens, text after text: from each start as many as the text is long."""
    return np.repeat(starts - starts_of(lengths), lengths) + np.arange(lengths.sum())
