"""Intervals against published examples, and how often they hold the truth, outcome by outcome."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from math import comb, isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.metrics.significance import Interval, gain_interval, mean_interval

Outcome = tuple[float, np.ndarray]
"""Its probability and the values."""


def hits(count: int, of: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [count, of - count])


def gains(up: int, down: int, of: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [up, down, of - up - down])


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_a_share_has_wilsons_interval(count: int, of: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3."""
    value, *limits = mean_interval([hits(count, of)])
    assert value == count / of
    assert np.allclose(limits, (low, high), rtol=0, atol=5e-5)


def test_a_gain_has_bonett_and_prices_interval() -> None:
    """Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850-2875: 1 of 21 patients
    changed one way and 7 the other."""
    value, *limits = gain_interval([gains(1, 7, 21)])
    assert isclose(value, -6 / 21)
    assert np.allclose(limits, (-0.508, -0.013), rtol=0, atol=5e-4)


def share_outcomes(p: float, of: int) -> Iterator[Outcome]:
    for count in range(of + 1):
        yield comb(of, count) * p**count * (1 - p) ** (of - count), hits(count, of)


def gain_outcomes(p: tuple[float, float], of: int) -> Iterator[Outcome]:
    up, down = p
    for ups in range(of + 1):
        for downs in range(of + 1 - ups):
            ways = comb(of, ups) * comb(of - ups, downs)
            chance = ways * up**ups * down**downs * (1 - up - down) ** (of - ups - downs)
            yield chance, gains(ups, downs, of)


@cache  # the same outcomes come with every truth
def limits(
    interval: Callable[[Sequence[np.ndarray]], Interval], outcome: tuple[bytes, ...]
) -> tuple[float, float]:
    _, low, high = interval([np.frombuffer(values) for values in outcome])
    return low, high


def coverage(
    interval: Callable[[Sequence[np.ndarray]], Interval],
    groups: Sequence[Sequence[Outcome]],
    truth: float,
) -> float:
    """The chance that the interval holds the truth, over all outcomes of independent groups."""
    held = 0.0
    for outcome in product(*groups):
        low, high = limits(interval, tuple(values.tobytes() for _, values in outcome))
        chance = float(np.prod([chance for chance, _ in outcome]))
        held += chance * (low - 1e-12 <= truth <= high + 1e-12)
    return held


SHARES = (0.0, 0.002, 0.02, 0.1, 0.25, 0.5, 0.7, 0.9, 0.98, 0.998, 1.0)


@pytest.mark.parametrize(
    ("sizes", "least"),
    [((1,), 0.89), ((2,), 0.82), ((10,), 0.83), ((60,), 0.85), ((1, 1, 1), 0.85), ((4, 9), 0.88),
     ((1, 20), 0.74), ((4, 4, 4), 0.85), ((20, 30), 0.9)],
)  # fmt: skip
def test_how_often_intervals_hold_a_mean_share(sizes: tuple[int, ...], least: float) -> None:
    """Of all score intervals the minimum is below 0.95, of Wilson's it is 0.83, for shares beside 0
    and 1; it is lowest where half of the mean is a single query. On average it is about 0.95."""
    found = []
    for shares in product(SHARES[:: 1 if len(sizes) < 3 else 3], repeat=len(sizes)):
        groups = [list(share_outcomes(p, n)) for p, n in zip(shares, sizes, strict=True)]
        found.append(coverage(mean_interval, groups, float(np.mean(shares))))
    assert min(found) > least
    assert np.mean(found) > 0.94


MOVES = ((0.0, 0.0), (0.003, 0.0), (0.03, 0.01), (0.2, 0.0), (0.2, 0.15), (0.1, 0.6), (0.5, 0.5))


@pytest.mark.parametrize("sizes", [(1,), (2,), (12,), (40,), (1, 1), (4, 4), (1, 8)])
def test_how_often_intervals_hold_a_mean_gain(sizes: tuple[int, ...]) -> None:
    found = []
    for moves in product(MOVES, repeat=len(sizes)):
        groups = [list(gain_outcomes(p, n)) for p, n in zip(moves, sizes, strict=True)]
        truth = float(np.mean([up - down for up, down in moves]))
        found.append(coverage(gain_interval, groups, truth))
    assert min(found) > 0.87
    assert np.mean(found) > 0.94


def test_nothing_moved_is_no_certainty() -> None:
    """Of 432 queries, 0 that move leave room for 3 / 432: the rule of three."""
    value, low, high = gain_interval([np.zeros(432)])
    assert (value, low) == (0, -high)
    assert 2 / 432 < high < 4 / 432


@pytest.mark.parametrize("interval", [mean_interval, gain_interval])
def test_categories_of_one_query_each_are_as_good_as_one_category(
    interval: Callable[[Sequence[np.ndarray]], Interval],
) -> None:
    values = hits(70, 100)
    one, many = interval([values]), interval(np.split(values, 100))
    assert np.allclose(one, many, rtol=1e-12)


def test_a_large_sample_has_the_normal_interval() -> None:
    """What all forms come to, here from the sample's own variance."""
    rng = np.random.default_rng(3)
    groups = [1 / rng.integers(1, 30, 4000), 1 / rng.integers(1, 9, 6000)]
    margin = 1.96 * np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups)) / 2
    value, low, high = mean_interval(groups)
    assert np.allclose((low, high), (value - margin, value + margin), rtol=0, atol=margin / 50)
    differences = [2 * group - 1 for group in groups]
    value, low, high = gain_interval(differences)
    margin *= 2
    assert np.allclose((low, high), (value - margin, value + margin), rtol=0, atol=margin / 50)


VALUES = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
GROUPS = st.lists(st.lists(VALUES, min_size=1, max_size=9).map(np.array), min_size=1, max_size=5)


@given(GROUPS)
def test_an_interval_holds_its_mean_has_a_width_and_stays_in_range(
    groups: list[np.ndarray],
) -> None:
    value, low, high = mean_interval(groups)
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0.05  # 45 queries at most
    value, low, high = gain_interval([2 * group - 1 for group in groups])
    assert -1 <= low <= value <= high <= 1
    assert high - low > 0.03
