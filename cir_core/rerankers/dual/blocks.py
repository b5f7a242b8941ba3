"""Which pairs are scored together: candidate-major blocks.

The cross-attention keys and values of a candidate depend on the candidate alone, so pairs are
sorted by candidate and a candidate's keys and values are projected once for all of its queries.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

Block = Int[np.ndarray, " pair"]
"""Indices of pairs, sorted by the length of their text and then by candidate."""


def plan_blocks(
    candidate_of_pair: Int[np.ndarray, " pair"],
    tokens_of_pair: Int[np.ndarray, " pair"],
    most_tokens: int,
) -> list[Block]:
    """Split pairs into blocks of at most ``most_tokens`` tokens, in the order of candidates.

    A candidate whose pairs have more tokens than that is cut; else its pairs are in one block. A
    text longer than that has a block of its own. Every pair is in exactly one block; no pairs, no
    blocks.
    """
    order = np.lexsort((tokens_of_pair, candidate_of_pair))
    _, counts = np.unique(candidate_of_pair, return_counts=True)
    blocks: list[list[Block]] = []
    room = 0
    for pairs in np.split(order, np.cumsum(counts)[:-1]):
        for piece in _cut(pairs, tokens_of_pair[pairs], most_tokens):
            tokens = int(tokens_of_pair[piece].sum())
            if tokens > room:
                blocks.append([])
                room = most_tokens
            blocks[-1].append(piece)
            room -= tokens
    return [_by_length(np.concatenate(block), tokens_of_pair) for block in blocks]


def _cut(pairs: Block, tokens: Int[np.ndarray, " pair"], most_tokens: int) -> Iterator[Block]:
    """Pieces that fit into a block each, or are one pair."""
    while len(pairs):
        fits = max(1, int(np.searchsorted(tokens.cumsum(), most_tokens, side="right")))
        yield pairs[:fits]
        pairs, tokens = pairs[fits:], tokens[fits:]


def _by_length(pairs: Block, tokens_of_pair: Int[np.ndarray, " pair"]) -> Block:
    return pairs[np.argsort(tokens_of_pair[pairs], kind="stable")]
