"""Self-attention of packed texts in tiles: neighbours lie in one as far as it has room, and a mask
keeps them apart. One fused call for all, however long they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from cir_core.layers.ragged import starts_of
from cir_core.rerankers.dual.cost import Sizes
from cir_core.rerankers.dual.padding import Layout, of_each, rows_at

TILE = 128
"""Rows that texts share, if none is longer: a fused kernel attends to as many at once as to few."""

STEP = 8
"""Tiles have a multiple of so many rows: kernels read masks so."""

MOST_PADDING = 2
"""Rows of tiles to those of texts: two neighbouring tiles hold more than fits into one."""


@dataclass(frozen=True)
class Tiling:
    """On the host: the tokens of a block's texts in tiles; each text's first, tile by tile; and
    which text is in each place, -1 where that is padding."""

    tokens: Layout
    firsts: Layout
    lengths: Int[np.ndarray, " text"]
    text_of_place: Int[np.ndarray, " place"]

    @classmethod
    def of(cls, lengths: Int[np.ndarray, " text"]) -> Self:
        """Of packed texts in the order of their lengths, one at least."""
        starts = _tile_starts(lengths, most_rows=longest_tile(lengths))
        tiles, texts = np.arange(len(starts)), np.diff(starts, append=len(lengths))
        rows, whole = np.add.reduceat(lengths, starts), [0, len(starts)]
        tokens = Layout.of(np.arange(lengths.sum()), rows, tiles, whole, STEP)
        firsts = Layout.of(np.arange(len(lengths)), texts, tiles, whole)
        text_of_place = np.full(len(tokens.row_of_place), -1)
        text_of_place[tokens.place_of_row] = np.repeat(np.arange(len(lengths)), lengths)
        return cls(tokens, firsts, lengths, text_of_place)

    @property
    def indices(self) -> list[Int[np.ndarray, " some"]]:
        """All that a device has to know, for ``TiledTexts``."""
        text_of_row = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return [
            starts_of(self.lengths),
            self.text_of_place,
            text_of_row[self.tokens.row_of_place],
            self.tokens.row_of_place,
            self.tokens.place_of_row,
            self.firsts.row_of_place,
            self.firsts.place_of_row,
        ]


def longest_tile(lengths: Int[np.ndarray, " text"]) -> int:
    """Rows of a tile of any of these texts at most."""
    return max(TILE, -(-int(lengths.max(initial=1)) // STEP) * STEP)


def _tile_starts(lengths: Int[np.ndarray, " text"], most_rows: int) -> Int[np.ndarray, " tile"]:
    """The first text of each tile."""
    ends, starts = np.cumsum(lengths), [0]
    while True:
        start = starts[-1]
        stop = int(np.searchsorted(ends, ends[start] - lengths[start] + most_rows, side="right"))
        if stop == len(lengths):
            return np.array(starts)
        starts.append(stop)


class TiledTexts:
    """``Texts``, of so many branches at most."""

    def __init__(
        self, dtype: torch.dtype, branches: int, tiles: int, indices: Sequence[Int[Tensor, " some"]]
    ) -> None:
        self.firsts, keys, queries, *places = indices
        own = keys.view(tiles, 1, -1)
        others = queries.view(tiles, -1, 1) != own
        other_firsts = places[2].view(tiles, -1, 1) != own
        self._tokens = _Rows.of(dtype, branches, others, *places[:2])
        self._firsts = _Rows.of(dtype, branches, other_firsts, *places[2:])

    def see(
        self,
        sizes: Sizes,
        queries: Float[Tensor, "branch row width"],
        context: Float[Tensor, "branch token key_and_value"],
    ) -> Float[Tensor, "branch row width"]:
        asking = self._tokens if queries.shape[1] == context.shape[1] else self._firsts
        channels = sizes.width // sizes.heads
        split = self._tokens.together(context).unflatten(-1, (2, -1, channels))
        keys, values = split.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(
            asking.together(queries).unflatten(-1, (-1, channels)).transpose(1, 2),
            keys,
            values,
            attn_mask=asking.masks[: len(keys)],
            scale=1.0,
        )
        return asking.apart(found.transpose(1, 2).flatten(2), branches=len(queries))


@dataclass(frozen=True)
class _Rows:
    """Rows in tiles, branch after branch, and what each tile's may not see."""

    tiles: int
    row_of_place: Int[Tensor, "branch place"]
    place_of_row: Int[Tensor, "branch row"]
    masks: Float[Tensor, "branch_tile 1 row key"]

    @classmethod
    def of(
        cls,
        dtype: torch.dtype,
        branches: int,
        others: Bool[Tensor, "tile row key"],
        row_of_place: Int[Tensor, " place"],
        place_of_row: Int[Tensor, " row"],
    ) -> Self:
        nothing = torch.zeros(others.shape, dtype=dtype, device=others.device)
        mask = nothing.masked_fill_(others, float("-inf"))
        rows, places = len(place_of_row), len(row_of_place)
        return cls(
            tiles=len(others),
            row_of_place=of_each(row_of_place, rows, branches),
            place_of_row=of_each(place_of_row, places, branches),
            masks=mask.repeat(branches, 1, 1)[:, None],
        )

    def together(
        self, x: Float[Tensor, "branch row width"]
    ) -> Float[Tensor, "branch_tile each width"]:
        return rows_at(x, self.row_of_place[: len(x)]).unflatten(0, (len(x) * self.tiles, -1))

    def apart(
        self, x: Float[Tensor, "branch_tile each width"], branches: int
    ) -> Float[Tensor, "branch row width"]:
        return rows_at(x, self.place_of_row[:branches]).unflatten(0, (branches, -1))
