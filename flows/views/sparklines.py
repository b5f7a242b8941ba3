"""A row of numbers as a row of small bars."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = ".:-=+*#@"
"""For encodings that lack the blocks: the ink grows as the bars do."""
GAP = " "

MOST = 40
"""Of a row: what stands beside it fits in 80 columns."""


def sparkline(
    values: Iterable[float | None], *, least: float | None = None, encoding: str = "utf-8"
) -> str:
    """A character a value, the higher the larger, from ``least`` (that of the values if None) to
    the largest; "" of no values.

    None, NaN and the infinities are gaps. Where all values are equal, they are of middle height:
    which end they are at, nothing says. ``encoding`` is what is written to: one without blocks gets
    ASCII.
    """
    # halved: the distance of the largest floats is none
    heights = [one / 2 if one is not None and math.isfinite(one) else None for one in values]
    known = [one for one in heights if one is not None]
    if not known:
        return GAP * len(heights)
    low = min(known) if least is None else least / 2
    spread = max(known) - low
    signs = _signs(encoding)
    return "".join(GAP if one is None else signs[_level(one - low, spread)] for one in heights)


def thinned(values: Sequence[float], most: int = MOST) -> list[float]:
    """At most so many means, of neighbours in equal numbers as nearly as can be."""
    cells = min(most, len(values))
    bounds = [place * len(values) // cells for place in range(cells + 1)] if cells else [0]
    groups = (values[start:end] for start, end in pairwise(bounds))
    return [math.fsum(group) / len(group) for group in groups]


def _level(above: float, spread: float) -> int:
    last = len(BLOCKS) - 1
    if spread <= 0:
        return last // 2
    return min(max(round(last * (above / spread)), 0), last)


def _signs(encoding: str) -> str:
    try:
        BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS
