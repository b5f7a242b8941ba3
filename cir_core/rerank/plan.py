"""Which pairs are scored together: candidate-major blocks.

The cross-attention keys and values of a candidate depend on the candidate alone, so pairs are
sorted by candidate and a candidate's keys and values are projected once for all of its queries.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Block:
    """Some candidates with all of their pairs; ``pairs`` index the planned arrays."""

    candidates: Int[np.ndarray, " candidate"]
    pairs: Int[np.ndarray, " pair"]
    candidate_of_pair: Int[np.ndarray, " pair"]
    """Index into ``candidates`` for each of ``pairs``."""


def plan_blocks(candidate_of_pair: Int[np.ndarray, " pair"], most_pairs: int) -> list[Block]:
    """Split pairs into blocks of whole candidates, of at most ``most_pairs`` pairs each.

    A candidate with more pairs than that has a block of its own. Every pair is in exactly one
    block; no pairs, no blocks.
    """
    order = np.argsort(candidate_of_pair, kind="stable")
    candidates, counts = np.unique(candidate_of_pair, return_counts=True)
    blocks, first, taken, start = [], 0, 0, 0
    for index, count in enumerate([*counts.tolist(), None]):
        if taken and (count is None or taken + count > most_pairs):
            chosen, pairs = candidates[first:index], order[start : start + taken]
            blocks.append(Block(chosen, pairs, np.searchsorted(chosen, candidate_of_pair[pairs])))
            first, start, taken = index, start + taken, 0
        taken += count or 0
    return blocks
