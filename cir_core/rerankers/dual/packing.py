"""Texts of different lengths in one matrix: a row per token, none for padding."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.layers.ragged import starts_of


@dataclass(frozen=True)
class Group:
    """``count`` neighbouring texts of one length, and their tokens."""

    count: int
    texts: slice
    tokens: slice


class Texts:
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
