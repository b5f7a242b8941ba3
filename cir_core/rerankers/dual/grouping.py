"""Attention of packed rows in few, large calls, as a GPU wants them: texts in tiles; and images
together that about as many rows look at.

Within a group images are padded to the rows of the most looked at one: never what is looked at, so
no mask is needed. All looks are attended as so many more heads. A block's indices are computed
once, on the host, and sent in one copy that nobody waits for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cir_core.rerankers.dual.cost import Sizes, absorbed_rows
from cir_core.rerankers.dual.packing import Packed
from cir_core.rerankers.dual.padding import Group, Layout, of_each, rows_at
from cir_core.rerankers.dual.tiles import TiledTexts, Tiling
from cir_core.rerankers.dual.transfer import send

MOST_PADDING = 1.15
"""Rows of a group of images, padded, to those that look. Attending is a tenth of a row's work."""


def layout_of_images(image_of_row: Int[np.ndarray, " row"], most_images: int) -> Layout:
    """Of rows that look at images; the most looked at come first."""
    counts = np.bincount(image_of_row)
    looked = np.flatnonzero(counts)
    order = looked[np.argsort(-counts[looked], kind="stable")]
    bounds = [0, *np.cumsum(_group_sizes(counts[order], most_images)).tolist()]
    return Layout.of(np.argsort(image_of_row, kind="stable"), counts, order, bounds)


def _group_sizes(counts: Int[np.ndarray, " image"], most: int) -> list[int]:
    """How many neighbours are together, of descending counts."""
    sizes: list[int] = []
    while len(counts):
        true = np.cumsum(counts[:most])
        fits = counts[0] * np.arange(1, len(true) + 1) <= MOST_PADDING * true
        sizes.append(int(fits.sum()))
        counts = counts[sizes[-1] :]
    return sizes


class PaddedImages:
    """``Looking``, at a group of images at a time, by so many looks at most."""

    def __init__(
        self,
        groups: Sequence[Group],
        looks: int,
        images: Int[Tensor, " image"],
        row_of_place: Int[Tensor, " place"],
        place_of_row: Int[Tensor, " row"],
    ) -> None:
        self._groups, self._images = groups, images
        rows, places = len(place_of_row), len(row_of_place)
        self._row_of_place = of_each(row_of_place, rows, looks).T
        self._place_of_row = of_each(place_of_row, places, looks)

    def together(self, x: Float[Tensor, "branch row width"]) -> Float[Tensor, "branch place width"]:
        """Padded, and all branches of a place side by side in memory."""
        return (
            rows_at(x, self._row_of_place[:, : len(x)]).unflatten(0, (-1, len(x))).transpose(0, 1)
        )

    def apart(self, x: Float[Tensor, "*branch place width"]) -> Float[Tensor, "*branch row width"]:
        branches = x.shape[:-2].numel()
        rows = rows_at(x.view(branches, *x.shape[-2:]), self._place_of_row[:branches])
        return rows.view(*x.shape[:-2], -1, x.shape[-1])

    def see(
        self,
        sizes: Sizes,
        context: Float[Tensor, "key_or_value look width image_width"],
        asking: Float[Tensor, "all_looks place width"],
        image_tokens: Float[Tensor, "image patch image_width"],
    ) -> Float[Tensor, "place all_looks head channel"]:
        first = sizes.looks - context.shape[1]
        queries = asking.transpose(0, 1)[:, first:]
        seen = []
        for group in self._groups:
            images = image_tokens.index_select(0, self._images[group.items])
            some = queries[group.places].unflatten(0, (-1, group.each)).flatten(2)
            look = _absorb if 2 * group.each <= absorbed_rows(sizes) else _project
            seen.append(look(sizes, context, some, images).flatten(0, 1))
        found = _joined(seen).unflatten(-1, (-1, sizes.heads, sizes.width // sizes.heads))
        return functional.pad(found, (0, 0, 0, 0, first, 0)) if first else found


def _project(
    sizes: Sizes,
    context: Float[Tensor, "key_or_value look width image_width"],
    asking: Float[Tensor, "image each looks_width"],
    images: Float[Tensor, "image patch image_width"],
) -> Float[Tensor, "image each looks_width"]:
    """Keys and values of all images in one product."""
    projected = functional.linear(images, context.flatten(0, 2))
    return _attend(sizes, asking, projected.unflatten(-1, (2, -1)))


def _absorb(
    sizes: Sizes,
    context: Float[Tensor, "key_or_value look width image_width"],
    asking: Float[Tensor, "image each looks_width"],
    images: Float[Tensor, "image patch image_width"],
) -> Float[Tensor, "image each looks_width"]:
    """The same with the projections moved to the queries, in plain products: heads as wide as an
    image are more than fused attention takes."""
    count, each, _ = asking.shape
    for_keys, for_values = context.unflatten(2, (sizes.heads, -1)).flatten(1, 2)
    queries = asking.unflatten(-1, (len(for_keys), -1)).flatten(0, 1).transpose(0, 1)
    queries = torch.bmm(queries, for_keys).unflatten(1, (count, each)).transpose(0, 1).flatten(1, 2)
    weights = torch.bmm(queries, images.mT).softmax(-1)
    found = torch.bmm(weights, images).unflatten(1, (len(for_keys), each))
    seen = torch.bmm(found.transpose(0, 1).flatten(1, 2), for_values.mT)
    return seen.transpose(0, 1).flatten(1).unflatten(0, (count, each))


def _attend(
    sizes: Sizes,
    queries: Float[Tensor, "item row heads_width"],
    context: Float[Tensor, "item key 2 heads_width"],
) -> Float[Tensor, "item row heads_width"]:
    """Attention of each item's rows to its own keys and values."""
    channels = sizes.width // sizes.heads
    keys, values = context.unflatten(-1, (-1, channels)).permute(2, 0, 3, 1, 4)
    asking = queries.unflatten(-1, (-1, channels)).transpose(1, 2)
    found = functional.scaled_dot_product_attention(asking, keys, values, scale=1.0)
    return found.transpose(1, 2).flatten(2)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True)
class Grouped:
    """A ``Packing``. No more than so many images are projected at once."""

    device: torch.device
    dtype: torch.dtype
    sizes: Sizes
    most_images: int

    def texts(self, lengths: Int[np.ndarray, " text"]) -> TiledTexts:
        tiling = Tiling.of(lengths)
        return self._texts(tiling, send(tiling.indices, self.device))

    def block(
        self,
        lengths: Int[np.ndarray, " text"],
        image_of_text: Int[np.ndarray, " text"],
        taken: Int[np.ndarray, " token"],
    ) -> Packed:
        tiling = Tiling.of(lengths)
        looking = [
            layout_of_images(image_of_row, self.most_images)
            for image_of_row in (np.repeat(image_of_text, lengths), image_of_text)
        ]
        of_images = [
            index
            for each in looking
            for index in (each.order, each.row_of_place, each.place_of_row)
        ]
        first, *sent = send([taken, *of_images, *tiling.indices], self.device)
        looks = self.sizes.looks
        return Packed(
            taken=first,
            tokens=PaddedImages(looking[0].groups, looks, *sent[:3]),
            firsts=PaddedImages(looking[1].groups, looks, *sent[3:6]),
            texts=self._texts(tiling, sent[6:]),
        )

    def _texts(self, tiling: Tiling, indices: Sequence[Tensor]) -> TiledTexts:
        tiles = len(tiling.tokens.order)
        return TiledTexts(self.dtype, self.sizes.branches, tiles, indices)
