"""Attention of packed rows in few, large calls, as a GPU wants them: texts of about one length
together, and images that about as many rows look at.

Within a group items are padded to the longest one's rows. Of images only rows that look are padded,
never what they look at, so no mask is needed; padded rows are repetitions and are thrown away. All
branches, or looks, are attended as so many more heads, and their rows are brought from and to the
packed matrix in one call each. A block's indices are computed once, on the host, and sent in one
copy that nobody waits for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cir_core.layers.ragged import rows_of, starts_of
from cir_core.rerankers.dual.cost import Sizes, absorbed_rows
from cir_core.rerankers.dual.packing import Packed

TEXT_STEP = 8
"""Texts are padded to a multiple of this; masks are aligned so."""

MOST_PADDING = 1.15
"""Rows of a group of images, padded, to those that look. Attending is a tenth of a row's work."""


class Group(NamedTuple):
    """Neighbouring items, and their places: so many each."""

    items: slice
    places: slice
    each: int


@dataclass(frozen=True)
class Layout:
    """Where ragged rows lie when they are padded, on the host.

    ``order``: the items, group after group. ``row_of_place``: the packed row in each place; one
    beyond an item's rows repeats its last. ``place_of_row``: the way back.
    """

    groups: list[Group]
    order: Int[np.ndarray, " item"]
    row_of_place: Int[np.ndarray, " place"]
    place_of_row: Int[np.ndarray, " row"]

    @classmethod
    def of_texts(cls, lengths: Int[np.ndarray, " text"]) -> Self:
        """Of packed texts in the order of their lengths."""
        each = padded_lengths(lengths)
        bounds = [0, *(1 + np.flatnonzero(np.diff(each))).tolist(), len(lengths)]
        return cls._of(np.arange(lengths.sum()), lengths, np.arange(len(lengths)), bounds)

    @classmethod
    def of_images(cls, image_of_row: Int[np.ndarray, " row"], most_images: int) -> Self:
        """Of rows that look at images; the most looked at come first."""
        counts = np.bincount(image_of_row)
        looked = np.flatnonzero(counts)
        order = looked[np.argsort(-counts[looked], kind="stable")]
        bounds = [0, *np.cumsum(_group_sizes(counts[order], most_images)).tolist()]
        return cls._of(np.argsort(image_of_row, kind="stable"), counts, order, bounds, step=1)

    @classmethod
    def _of(
        cls,
        rows: Int[np.ndarray, " row"],
        counts: Int[np.ndarray, " item"],
        order: Int[np.ndarray, " some"],
        bounds: Sequence[int],
        step: int = TEXT_STEP,
    ) -> Self:
        """``rows`` are the packed ones, item after item; an item has so many."""
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


def padded_lengths(lengths: Int[np.ndarray, " text"]) -> Int[np.ndarray, " text"]:
    """As texts are attended."""
    return -(-lengths // TEXT_STEP) * TEXT_STEP


def most_text_padding(lengths: Int[np.ndarray, " text"]) -> float:
    """Of any of these texts: its tokens as it is attended, to its true ones."""
    return float((padded_lengths(lengths) / lengths).max(initial=1.0))


def _group_sizes(counts: Int[np.ndarray, " image"], most: int) -> list[int]:
    """How many neighbours are together, of descending counts."""
    sizes: list[int] = []
    while len(counts):
        true = np.cumsum(counts[:most])
        fits = counts[0] * np.arange(1, len(true) + 1) <= MOST_PADDING * true
        sizes.append(int(fits.sum()))
        counts = counts[sizes[-1] :]
    return sizes


class PaddedTexts:
    """``Texts`` of about one length at a time, under a mask."""

    def __init__(
        self,
        dtype: torch.dtype,
        groups: Sequence[Group],
        lengths: Int[Tensor, " text"],
        firsts: Int[Tensor, " text"],
        row_of_place: Int[Tensor, " place"],
        place_of_row: Int[Tensor, " row"],
    ) -> None:
        self.firsts = firsts
        self._groups, self._row_of_place, self._place_of_row = groups, row_of_place, place_of_row
        self._masks = [_mask(lengths[group.items], group.each, dtype) for group in groups]

    def see(
        self,
        sizes: Sizes,
        queries: Float[Tensor, "branch row width"],
        context: Float[Tensor, "branch token key_and_value"],
    ) -> Float[Tensor, "branch row width"]:
        of_tokens = queries.shape[1] == context.shape[1]
        asking = queries.transpose(0, 1)
        if of_tokens:
            asking = asking.index_select(0, self._row_of_place)
        split = context.unflatten(-1, (2, -1)).permute(1, 2, 0, 3)
        split = split.index_select(0, self._row_of_place)
        seen = []
        for group, mask in zip(self._groups, self._masks, strict=True):
            rows = asking[group.places if of_tokens else group.items]
            each = group.each if of_tokens else 1
            own = split[group.places].unflatten(0, (-1, group.each)).flatten(3)
            found = _attend(sizes, rows.unflatten(0, (-1, each)).flatten(2), own, mask)
            seen.append(found.flatten(0, 1))
        all_seen = _joined(seen).unflatten(-1, (len(queries), -1))
        if of_tokens:
            all_seen = all_seen.index_select(0, self._place_of_row)
        return all_seen.transpose(0, 1)


class PaddedImages:
    """``Looking``, at a group of images at a time."""

    def __init__(
        self,
        groups: Sequence[Group],
        images: Int[Tensor, " image"],
        row_of_place: Int[Tensor, " place"],
        place_of_row: Int[Tensor, " row"],
    ) -> None:
        self._groups, self._images = groups, images
        self._row_of_place, self._place_of_row = row_of_place, place_of_row

    def together(self, x: Float[Tensor, "branch row width"]) -> Float[Tensor, "branch place width"]:
        """Padded, and all branches of a place side by side in memory."""
        return x.transpose(0, 1).index_select(0, self._row_of_place).transpose(0, 1)

    def apart(self, x: Float[Tensor, "*branch place width"]) -> Float[Tensor, "*branch row width"]:
        return x.index_select(-2, self._place_of_row)

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
    mask: Float[Tensor, "item 1 1 key"] | None = None,
) -> Float[Tensor, "item row heads_width"]:
    """Attention of each item's rows to its own keys and values."""
    channels = sizes.width // sizes.heads
    keys, values = context.unflatten(-1, (-1, channels)).permute(2, 0, 3, 1, 4)
    asking = queries.unflatten(-1, (-1, channels)).transpose(1, 2)
    found = functional.scaled_dot_product_attention(asking, keys, values, attn_mask=mask, scale=1.0)
    return found.transpose(1, 2).flatten(2)


def _mask(
    lengths: Int[Tensor, " text"], each: int, dtype: torch.dtype
) -> Float[Tensor, "text 1 1 key"]:
    """What is added to logits: 0 where a token is real."""
    padding = torch.arange(each, device=lengths.device) >= lengths[:, None]
    nothing = torch.zeros(padding.shape, dtype=dtype, device=lengths.device)
    return nothing.masked_fill_(padding, float("-inf"))[:, None, None]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True)
class Grouped:
    """A ``Packing``. No more than so many images are projected at once."""

    device: torch.device
    dtype: torch.dtype
    most_images: int

    def texts(self, lengths: Int[np.ndarray, " text"]) -> PaddedTexts:
        layout = Layout.of_texts(lengths)
        return PaddedTexts(
            self.dtype, layout.groups, *send(_of_texts(layout, lengths), self.device)
        )

    def block(
        self,
        lengths: Int[np.ndarray, " text"],
        image_of_text: Int[np.ndarray, " text"],
        taken: Int[np.ndarray, " token"],
    ) -> Packed:
        texts = Layout.of_texts(lengths)
        tokens, firsts = (
            Layout.of_images(image_of_row, self.most_images)
            for image_of_row in (np.repeat(image_of_text, lengths), image_of_text)
        )
        sent = send(
            [taken, *_of_texts(texts, lengths), *_of_images(tokens), *_of_images(firsts)],
            self.device,
        )
        return Packed(
            taken=sent[0],
            texts=PaddedTexts(self.dtype, texts.groups, *sent[1:5]),
            tokens=PaddedImages(tokens.groups, *sent[5:8]),
            firsts=PaddedImages(firsts.groups, *sent[8:11]),
        )


def _of_texts(layout: Layout, lengths: Int[np.ndarray, " text"]) -> list[np.ndarray]:
    return [lengths, starts_of(lengths), layout.row_of_place, layout.place_of_row]


def _of_images(layout: Layout) -> list[np.ndarray]:
    return [layout.order, layout.row_of_place, layout.place_of_row]


def send(arrays: Sequence[Int[np.ndarray, " some"]], device: torch.device) -> Sequence[Tensor]:
    """Indices on the device, in one copy, which this does not wait for."""
    together = torch.from_numpy(np.concatenate(arrays))
    if device.type == "cuda":
        together = together.pin_memory()
    return together.to(device, non_blocking=True).split([len(each) for each in arrays])
