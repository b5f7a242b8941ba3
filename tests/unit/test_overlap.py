"""Rank-biased overlap beside values worked out by hand, and beside sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cir_core.metrics.overlap import Lists, rank_biased_overlap

WORDS = st.lists(st.integers(0, 12), max_size=9, unique=True)


def lists(rankings: list[list[int]]) -> Lists:
    places = [
        (query, item, rank)
        for query, ranking in enumerate(rankings)
        for rank, item in enumerate(ranking, start=1)
    ]
    columns = np.array(places, dtype=np.int64).reshape(-1, 3)
    shuffled = np.random.default_rng(0).permutation(columns)
    return Lists(*shuffled.T)


def rbo(first: list[int], second: list[int], p: float) -> float:
    (found,) = rank_biased_overlap(lists([first]), lists([second]), 1, p=p)
    return float(found)


def plain(first: list[int], second: list[int], p: float) -> float:
    """Equation 32, term by term."""
    short, long = sorted((first, second), key=len)
    s, depth = len(short), len(long)
    if not s:
        return float("nan")
    x = [len({*short[:d]} & {*long[:d]}) for d in range(depth + 1)]
    total = sum(x[d] / d * p**d for d in range(1, depth + 1))
    total += sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, depth + 1))
    return (1 - p) / p * total + ((x[depth] - x[s]) / depth + x[s] / s) * p**depth


def test_two_that_change_places() -> None:
    """Agreement 0 at depth 1, 1 at depth 2 and from there on: p."""
    for p in (0.5, 0.9, 0.98):
        assert rbo([1, 2], [2, 1], p) == pytest.approx(p)


def test_the_papers_example() -> None:
    """Figure 3: <a b c d e f g> and <z c a v w x y>; agreements 0, 0, 2/3, 2/4, 2/5, 2/6, 2/7."""
    first, second = [0, 1, 2, 3, 4, 5, 6], [25, 2, 0, 21, 22, 23, 24]
    agreements = [0, 0, 2 / 3, 2 / 4, 2 / 5, 2 / 6, 2 / 7]
    for p in (0.8, 0.9):
        base = (1 - p) * sum(one * p**depth for depth, one in enumerate(agreements))
        assert rbo(first, second, p) == pytest.approx(base + 2 / 7 * p**7)


def test_a_list_that_ends_goes_on_as_it_agreed() -> None:
    assert rbo([1], [1, 2], 0.9) == pytest.approx(1)
    # depth 1: 0; depth 2: the one item of the short list is there, and half of one more agrees
    p = 0.9
    by_hand = (1 - p) / p * (1 / 2 * p**2 + 0) + (1 / 2 + 0) * p**2
    assert rbo([2], [1, 2], p) == pytest.approx(by_hand)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), st.floats(0.1, 0.99))
def test_many_at_once_agree_with_sets(pairs: list[tuple[list[int], list[int]]], p: float) -> None:
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    found = rank_biased_overlap(lists(first), lists(second), len(pairs), p=p)
    expected = [plain(one, other, p) for one, other in pairs]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    back = rank_biased_overlap(lists(second), lists(first), len(pairs), p=p)
    np.testing.assert_allclose(back, found, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(WORDS.filter(bool), st.floats(0.1, 0.99))
def test_equal_lists_overlap_wholly_and_disjoint_ones_not_at_all(one: list[int], p: float) -> None:
    assert rbo(one, one, p) == pytest.approx(1)
    assert rbo(one, [item + 50 for item in one], p) == 0
    assert 0 <= rbo(one, one[::-1], p) <= 1 + 1e-12
