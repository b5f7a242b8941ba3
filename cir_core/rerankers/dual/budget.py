"""How many tokens are scored together, so that the work fits into a given memory."""

import logging

import torch

from cir_core.errors import PreflightError
from cir_core.memory import free_memory
from cir_core.rerankers.dual.cost import BRANCHES, Sizes, absorbed_rows

TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32768}
"""More gain nothing. On the CPU speed is flat from 800 tokens on (measured up to 4096 at width
768); a GPU wants products of many thousand rows."""

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
        begun = BRANCHES * query_tokens * sizes.width * dtype.itemsize
        self.keeps_queries = begun <= memory // 2
        left = memory - begun * self.keeps_queries - dtype.itemsize * numbers_per_image(sizes)
        per_token = numbers_per_token(sizes) + BRANCHES * sizes.width * (not self.keeps_queries)
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
    and output."""
    attention = (5 * BRANCHES + 1) * sizes.width
    feed_forward = BRANCHES * (2 * sizes.width + sizes.feed_forward)
    return max(attention, feed_forward)


def numbers_per_image(sizes: Sizes) -> int:
    """Numbers that exist at once while a block attends to an image: its keys and values, or twice
    the queries projected to the image's width, one a head."""
    projected = 2 * BRANCHES * sizes.patches * sizes.width
    absorbed = 2 * BRANCHES * absorbed_rows(sizes) * sizes.heads * sizes.image_width
    return max(projected, absorbed)
