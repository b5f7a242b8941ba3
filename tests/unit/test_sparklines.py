"""Rows of numbers as rows of small bars."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.views.sparklines import ASCII, BLOCKS, GAP, sparkline, thinned

finite = st.integers(-1000, 1000).map(float)


def test_the_least_is_the_lowest_and_the_largest_the_highest() -> None:
    assert sparkline(range(8)) == BLOCKS
    assert sparkline([3.5, 0.0, 7.0]) == "▅▁█"


def test_nothing_is_nothing() -> None:
    assert sparkline([]) == ""


def test_no_distance_is_too_large() -> None:
    assert sparkline([-1.7e308, 0, 1.7e308]) == "▁▅█"


@pytest.mark.parametrize("value", [0.0, -3.0, 1e300])
def test_equal_values_are_of_middle_height(value: float) -> None:
    assert sparkline([value]) == "▄"
    assert sparkline([value] * 3) == "▄▄▄"


def test_what_is_no_number_is_a_gap() -> None:
    assert sparkline([0, None, math.nan, math.inf, -math.inf, 1]) == f"▁{GAP * 4}█"
    assert sparkline([None, math.nan]) == GAP * 2


def test_bars_may_begin_at_another_number_than_the_least() -> None:
    assert sparkline([4, 8], least=0) == "▅█"
    assert sparkline([0, 0], least=0) == "▄▄"
    assert sparkline([-1, 8], least=0) == "▁█"  # below it: the lowest


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "no-such-encoding"])
def test_where_there_are_no_blocks_signs_of_ascii_stand(encoding: str) -> None:
    assert sparkline(range(8), encoding=encoding) == ASCII


@given(st.lists(st.none() | finite))
def test_a_sign_a_value_in_the_order_of_the_values(values: list[float | None]) -> None:
    drawn = sparkline(values)
    assert len(drawn) == len(values)
    heights = [
        (value, BLOCKS.index(sign))
        for value, sign in zip(values, drawn, strict=True)
        if value is not None
    ]
    for (before, low), (after, high) in zip(sorted(heights), sorted(heights)[1:], strict=False):
        assert before <= after
        assert low <= high


def test_long_rows_are_thinned_to_means_of_neighbours() -> None:
    assert thinned([1, 3, 5, 7], 2) == [2, 6]
    assert thinned([1, 2, 3, 4, 5], 2) == [1.5, 4]
    assert thinned([1, 2], 5) == [1, 2]
    assert thinned([], 5) == []


@given(st.lists(finite, min_size=1, max_size=50), st.integers(1, 60))
def test_thinning_keeps_the_range_and_leaves_no_value_out(values: list[float], most: int) -> None:
    means = thinned(values, most)
    assert len(means) == min(most, len(values))
    assert min(values) <= min(means) + 1e-6
    assert max(means) <= max(values) + 1e-6
