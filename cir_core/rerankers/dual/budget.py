"""How many tokens are scored together, so that the work fits into a given memory."""

import logging

import torch

from cir_core.errors import PreflightError
from cir_core.memory import TOKENS_AT_ONCE, free_memory
from cir_core.rerankers.dual.cost import Sizes, absorbed_rows

_log = logging.getLogger(__name__)


class Budget:
    """Memory for re-ranking: beside the weights, the image tokens and the queries as given.

    Without ``memory``, half of what is free now. Half of it may keep all queries' states after
    layer 0's self-attention; the rest is for blocks of pairs.
    """

    def __init__(
        self,
        memory: int | None,
        sizes: Sizes,
        *,
        query_tokens: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        memory = free_memory(device) // 2 if memory is None else memory
        begun = sizes.branches * query_tokens * sizes.width * dtype.itemsize
        self.keeps_queries = begun <= memory // 2
        left = memory - begun * self.keeps_queries - dtype.itemsize * numbers_per_image(sizes)
        per_token = numbers_per_token(sizes) + sizes.branches * sizes.width * (
            not self.keeps_queries
        )
        fitting = left // (dtype.itemsize * per_token)
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
