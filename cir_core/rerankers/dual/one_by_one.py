"""Attention of packed rows, one length of texts and one image at a time.

No row is computed in vain: fastest where products are slow beside calls, as on a CPU with models of
the published sizes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cir_core.layers.ragged import starts_of
from cir_core.rerankers.dual.cost import Sizes, absorbed_rows
from cir_core.rerankers.dual.packing import Packed


@dataclass(frozen=True)
class Group:
    """``count`` neighbouring texts of one length, and their tokens."""

    count: int
    texts: slice
    tokens: slice


class TextsByLength:
    """Which rows belong to which text; texts follow each other in the order of their lengths."""

    def __init__(self, lengths: Int[np.ndarray, " text"], device: torch.device) -> None:
        self.groups = []
        text = token = 0
        distinct, counts = np.unique(lengths, return_counts=True)
        for length, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            texts, tokens = slice(text, text + count), slice(token, token + count * length)
            self.groups.append(Group(count, texts, tokens))
            text, token = texts.stop, tokens.stop
        self.firsts = torch.from_numpy(starts_of(lengths)).to(device)

    def see(
        self,
        sizes: Sizes,
        queries: Float[Tensor, "branch row width"],
        context: Float[Tensor, "branch token key_and_value"],
    ) -> Float[Tensor, "branch row width"]:
        of_tokens = queries.shape[1] == context.shape[1]
        queries = queries.unflatten(-1, (sizes.heads, -1))
        context = context.unflatten(-1, (2, sizes.heads, -1))
        seen = torch.empty_like(queries)
        for group in self.groups:
            rows = group.tokens if of_tokens else group.texts
            for branch in range(len(queries)):
                keys, values = _each(context[branch, group.tokens], group).permute(2, 0, 3, 1, 4)
                found = functional.scaled_dot_product_attention(
                    _each(queries[branch, rows], group).transpose(1, 2), keys, values, scale=1.0
                )
                _each(seen[branch, rows], group).copy_(found.transpose(1, 2))
        return seen.flatten(2)


class ByImage:
    """Brings rows that look at the same image together, and back into their order."""

    def __init__(self, image_of_row: Int[np.ndarray, " row"], device: torch.device) -> None:
        order = np.argsort(image_of_row, kind="stable")
        images, counts = np.unique(image_of_row, return_counts=True)
        ends = np.cumsum(counts)
        self._slices = [
            (int(image), slice(int(end - count), int(end)))
            for image, end, count in zip(images, ends, counts, strict=True)
        ]
        self._order = torch.from_numpy(order).to(device)
        self._back = torch.from_numpy(np.argsort(order)).to(device)

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """Each image, with those of the rows brought together that look at it."""
        return iter(self._slices)

    def together(self, x: Float[Tensor, "branch row width"]) -> Float[Tensor, "branch row width"]:
        return x if len(self._slices) == 1 else x.index_select(1, self._order)

    def apart(self, x: Float[Tensor, "*branch row width"]) -> Float[Tensor, "*branch row width"]:
        return x if len(self._slices) == 1 else x.index_select(-2, self._back)

    def see(
        self,
        sizes: Sizes,
        context: Float[Tensor, "key_or_value look width image_width"],
        asking: Float[Tensor, "all_looks row width"],
        image_tokens: Float[Tensor, "image patch image_width"],
    ) -> Float[Tensor, "row all_looks head channel"]:
        queries = asking.unflatten(-1, (sizes.heads, -1))
        seen = queries.new_empty(queries.shape[1], sizes.looks, *queries.shape[2:])
        first = sizes.looks - context.shape[1]
        for image, mine in self:
            some = queries[first:, mine].transpose(1, 2)
            look = absorb if some.shape[2] <= absorbed_rows(sizes) else _project
            seen[mine, first:] = look(context, some, image_tokens[image]).permute(2, 0, 1, 3)
        return seen


@dataclass(frozen=True)
class OneByOne:
    """A ``Packing``."""

    device: torch.device

    def texts(self, lengths: Int[np.ndarray, " text"]) -> TextsByLength:
        return TextsByLength(lengths, self.device)

    def block(
        self,
        lengths: Int[np.ndarray, " text"],
        image_of_text: Int[np.ndarray, " text"],
        taken: Int[np.ndarray, " token"],
    ) -> Packed:
        return Packed(
            torch.from_numpy(taken).to(self.device),
            self.texts(lengths),
            ByImage(np.repeat(image_of_text, lengths), self.device),
            ByImage(image_of_text, self.device),
        )


def _project(
    context: Float[Tensor, "key_or_value look width image_width"],
    queries: Float[Tensor, "look head row channel"],
    image: Float[Tensor, "patch image_width"],
) -> Float[Tensor, "look head row channel"]:
    """Attention to one image's keys and values: softmax(q (X Wkᵀ)ᵀ) X Wvᵀ."""
    looks, heads, _, _ = queries.shape
    projected = functional.linear(image, context.flatten(0, 2))
    split = projected.view(len(image), 2, looks, heads, -1)
    keys, values = split.permute(1, 2, 3, 0, 4)
    return functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)


def absorb(
    context: Float[Tensor, "key_or_value look width image_width"],
    queries: Float[Tensor, "look head row channel"],
    image: Float[Tensor, "patch image_width"],
) -> Float[Tensor, "look head row channel"]:
    """The same with the projections moved to the queries: softmax((q Wk) Xᵀ) X Wvᵀ."""
    looks, heads, rows, _ = queries.shape
    for_keys, for_values = context.unflatten(2, (heads, -1))
    asking = (queries @ for_keys).view(1, 1, -1, image.shape[1])
    patches = image[None, None]
    seen = functional.scaled_dot_product_attention(asking, patches, patches, scale=1.0)
    return seen.view(looks, heads, rows, -1) @ for_values.mT


def _each(rows: Tensor, group: Group) -> Tensor:
    """The rows text by text: a view of [row, ...] as [text, row, ...]."""
    return rows.unflatten(0, (group.count, -1))
