"""Work is shared out nearly as well as it can be."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from cir_core.planning.schedule import shared_out


def longest(weights: Sequence[float], shares: Sequence[Sequence[int]]) -> float:
    return max(sum(weights[item] for item in share) for share in shares)


def best(weights: Sequence[float], workers: int) -> float:
    """By trying every way."""
    return min(
        max(np.bincount(ways, weights=weights, minlength=workers))
        for ways in product(range(workers), repeat=len(weights))
    )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_share_is_longer_than_grahams_bound(workers: int) -> None:
    rng = np.random.default_rng(workers)
    for count in (1, 2, 5, 7):
        weights = rng.integers(0, 20, size=count).astype(float).tolist()
        shares = shared_out(weights, workers)
        assert sorted(item for share in shares for item in share) == list(range(count))
        assert all(share == sorted(share) for share in shares)
        assert min(map(len, shares)) >= (count >= workers)
        bound = (4 / 3 - 1 / (3 * workers)) * best(weights, workers)
        assert longest(weights, shares) <= bound + 1e-9


def test_the_bound_is_reached_by_grahams_own_example() -> None:
    weights = [5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 3.0]  # three threes beside 5 + 4 twice would be 9
    assert longest(weights, shared_out(weights, 3)) == 11
    assert best(weights, 3) == 9


def test_equal_items_go_round_in_turn() -> None:
    for weight in (0.0, 3.0):
        assert shared_out([weight] * 7, 3) == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_fashion_iqs_shards_keep_all_workers_busy(workers: int) -> None:
    """61 shards of 256 pictures in three galleries, with 39 pairs a picture in the mean, a picture
    being asked for the more often the more it is like others (log-normal), and one short shard."""
    rng = np.random.default_rng(0)
    of_gallery = np.repeat([20.0, 36.0, 61.0], [20, 20, 21])
    pictures = np.append(np.full(60, 256), 55)
    spread = [rng.lognormal(-0.5, 1.0, size=size).mean() for size in pictures]
    weights = pictures * (20 + of_gallery * spread)
    efficiency = weights.sum() / workers / longest(weights.tolist(), shared_out(weights, workers))
    assert efficiency >= 0.95
