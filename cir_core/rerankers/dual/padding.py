"""Where ragged rows lie when they are padded, item after item; computed on the host, once a block.

Rows of a padded item beyond its own repeat its last one, and are thrown away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.layers.ragged import rows_of, starts_of


class Group(NamedTuple):
    """Neighbouring items, and their places: so many each."""

    items: slice
    places: slice
    each: int


@dataclass(frozen=True)
class Layout:
    """``order``: the items, group after group. ``row_of_place``: the packed row in each place.
    ``place_of_row``: the way back."""

    groups: list[Group]
    order: Int[np.ndarray, " item"]
    row_of_place: Int[np.ndarray, " place"]
    place_of_row: Int[np.ndarray, " row"]

    @classmethod
    def of(
        cls,
        rows: Int[np.ndarray, " row"],
        counts: Int[np.ndarray, " item"],
        order: Int[np.ndarray, " some"],
        bounds: Sequence[int],
        step: int = 1,
    ) -> Self:
        """``rows`` are the packed ones, item after item; an item has so many. Groups of ``order``
        are within ``bounds``, and padded to a multiple of ``step``."""
        starts, counts = starts_of(counts)[order], counts[order]
        groups, place = [], 0
        each = np.zeros_like(counts)
        for start, stop in pairwise(bounds):
            width = -(-int(counts[start:stop].max()) // step) * step
            each[start:stop] = width
            places = slice(place, place + (stop - start) * width)
            groups.append(Group(slice(start, stop), places, width))
            place = places.stop
        number = rows_of(np.zeros_like(each), each)
        count = np.repeat(counts, each)
        row_of_place = rows[np.repeat(starts, each) + np.minimum(number, count - 1)]
        place_of_row = np.empty(len(rows), dtype=np.int64)
        true = number < count
        place_of_row[row_of_place[true]] = np.flatnonzero(true)
        return cls(groups, order, row_of_place, place_of_row)


def of_each(index: Int[Tensor, " some"], rows: int, times: int) -> Int[Tensor, "times some"]:
    """The same rows of each of so many matrices that lie one after another."""
    return index + rows * torch.arange(times, device=index.device)[:, None]


def rows_at(
    x: Float[Tensor, "matrix row width"], index: Int[Tensor, "..."]
) -> Float[Tensor, "taken width"]:
    """Rows of matrices that lie one after another, counted through. (Along any other dimension than
    the first of a contiguous tensor, a GPU's ``index_select`` takes four times as long.)"""
    return x.flatten(0, 1).index_select(0, index.flatten())
