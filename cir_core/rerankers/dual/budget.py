"""How many tokens are scored together, so that the work fits into a given memory."""

import logging
import math

import torch

from cir_core.errors import PreflightError
from cir_core.memory import TOKENS_AT_ONCE, free_memory
from cir_core.rerankers.dual import grouping, tiles
from cir_core.rerankers.dual.cost import Sizes, absorbed_rows

_log = logging.getLogger(__name__)

IMAGES_AT_ONCE = 64
"""Of a group: one product of 37,000 rows at the published sizes; more gain nothing."""


class Budget:
    """Memory for re-ranking: beside the weights, the image tokens and the queries as given.

    Without ``memory``, half of what is free now. Half of it may keep all queries' states after
    layer 0's self-attention; the rest is for blocks of pairs. Where images are projected in groups,
    those are as large as a quarter of that allows, and texts lie in tiles of so many rows at most.
    """

    def __init__(
        self,
        memory: int | None,
        sizes: Sizes,
        *,
        query_tokens: int,
        device: torch.device,
        dtype: torch.dtype,
        tile: int | None = None,
    ) -> None:
        memory = free_memory(device) // 2 if memory is None else memory
        begun = sizes.branches * query_tokens * sizes.width * dtype.itemsize
        self.keeps_queries = begun <= memory // 2
        left = memory - begun * self.keeps_queries
        self.most_images, of_images = 1, numbers_per_image(sizes)
        per_token = numbers_per_token(sizes) + sizes.branches * sizes.width * (
            not self.keeps_queries
        )
        if tile is not None:
            each = of_images + numbers_per_grouped_image(sizes)
            fitting = left // 4 // (dtype.itemsize * each)
            self.most_images = max(1, min(fitting, IMAGES_AT_ONCE))
            of_images = each * self.most_images
            per_token += math.ceil(numbers_per_padded_token(sizes, tile))
        fitting = (left - dtype.itemsize * of_images) // (dtype.itemsize * per_token)
        self.most_tokens = max(1, min(fitting, TOKENS_AT_ONCE[device.type]))

    def halve(self, tokens: int, pairs: int) -> None:
        """Go on with half of a block that did not fit. Raises PreflightError when that was one
        pair."""
        if pairs == 1:
            raise PreflightError(
                "the memory is too small to re-rank a single pair",
                cause=f"a text of {tokens} tokens and one image do not fit",
                remedy="free memory, pass a smaller --batch (fewer images in memory at a time), or "
                "--device cpu",
            )
        self.most_tokens = max(1, tokens // 2)
        _log.warning("out of memory: going on with %d tokens at a time", self.most_tokens)


def numbers_per_token(sizes: Sizes) -> int:
    """Numbers that exist at once per token of a block: in self-attention the input, queries, keys,
    values, what is seen, and a copy of it for one branch; in the feed-forward input, hidden units
    and output; in looks the input, queries, what is seen, and keys and values of z_t. And its share
    of its reference, which nobody else may have: a text has two tokens at least."""
    branches, looks, width = sizes.branches, sizes.looks, sizes.width
    attention = (5 * branches + 1) * width
    feed_forward = branches * (2 * width + sizes.feed_forward)
    looking = (2 * branches + 3 * looks + 3 * sizes.looks_at("z_t")) * width
    reference = sizes.looks_at("reference") * sizes.patches * sizes.image_width // 2
    return max(attention, feed_forward, looking) + reference


def numbers_per_image(sizes: Sizes) -> int:
    """Numbers that exist at once while a block attends to an image: its keys and values, or twice
    the queries projected to the image's width, one a head."""
    looks = sizes.looks_at("candidate")
    projected = 2 * looks * sizes.patches * sizes.width
    absorbed = 2 * looks * absorbed_rows(sizes) * sizes.heads * sizes.image_width
    return max(projected, absorbed)


def numbers_per_grouped_image(sizes: Sizes) -> int:
    """Beside these: a copy of its tokens; and where the queries are projected, which are half as
    many then, two more copies and what they look at with."""
    looks, rows = sizes.looks_at("candidate"), absorbed_rows(sizes) // 2
    absorbed = 2 * looks * rows * sizes.heads * (sizes.image_width + sizes.patches)
    return sizes.patches * sizes.image_width + absorbed


def numbers_per_padded_token(sizes: Sizes, tile: int) -> float:
    """Beside those of a packed one: in self-attention padded queries, keys, values, what is seen,
    and that once more, joined; in looks padded queries and what is seen, twice. And its masks."""
    attention = 5 * sizes.branches * tiles.MOST_PADDING
    looking = 3 * sizes.looks * grouping.MOST_PADDING
    masks = 2 * sizes.branches * tiles.MOST_PADDING * tile
    return sizes.width * max(attention, looking) + masks
