"""Queries in blocks, several at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

Result = TypeVar("Result")

MOST_AT_ONCE = 8
"""Blocks at once: bounds memory on machines with many cores."""

LEAST_QUERIES = 256
"""Of a block, where few queries are split among threads: matrix products of fewer rows are slow."""


def map_blocks(work: Callable[[slice], Result], count: int, *, most: int) -> list[Result]:
    """``work`` of consecutive slices of ``count`` rows, ``most`` rows each or fewer, in order; of
    one empty slice when there are none.

    As many run at once as torch may use threads, and share these among their matrix products. Were
    each product to use all, they would wait for each other's threads, while the comparing and
    sorting between them uses one: measured on two cores, 1.4 times as long.
    """
    threads = min(MOST_AT_ONCE, torch.get_num_threads())
    step = max(1, min(most, max(LEAST_QUERIES, -(-count // threads))))
    slices = [slice(start, start + step) for start in range(0, max(1, count), step)]
    each = max(1, torch.get_num_threads() // min(threads, len(slices)))
    with _controller().limit(limits=each, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, slices))


@cache
def _controller() -> ThreadpoolController:
    """Looking for the libraries takes a millisecond, as long as a small search."""
    return ThreadpoolController()
