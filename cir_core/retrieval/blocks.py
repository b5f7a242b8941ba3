"""Queries in blocks, several at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")

MOST_AT_ONCE = 8
"""Blocks at once: bounds memory on machines with many cores."""

LEAST_QUERIES = 256
"""Of a block, where few queries are split among threads: matrix products of fewer rows are slow."""


def map_blocks(work: Callable[[slice], Result], count: int, *, most: int) -> list[Result]:
    """``work`` of consecutive slices of ``count`` rows, ``most`` rows each or fewer, in order; of
    one empty slice when there are none.

    As many run at once as torch may use threads: while one block is in its matrix product, which
    uses all cores, others compare and sort, which use one.
    """
    threads = min(MOST_AT_ONCE, torch.get_num_threads())
    step = max(1, min(most, max(LEAST_QUERIES, -(-count // threads))))
    slices = [slice(start, start + step) for start in range(0, max(1, count), step)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, slices))
