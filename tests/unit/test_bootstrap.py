"""Intervals of paired differences by resampling, wins and losses, and sizes of effects."""

import math

import numpy as np
import pytest

from cir_core.metrics.bootstrap import FEW, difference_intervals
from cir_core.metrics.effects import outcome_of, standardised_difference
from cir_core.metrics.significance import gain_interval

RNG = np.random.default_rng(3)


def hits(share: float, size: int = 400) -> np.ndarray:
    return (RNG.random(size) < share).astype(float)


def test_an_interval_is_that_of_the_normal_approximation_where_that_holds() -> None:
    values = np.stack([hits(0.6), hits(0.5)], axis=1)
    (found,) = difference_intervals(["a"] * 400, values, [(0, 1)])
    gained = values[:, 0] - values[:, 1]
    error = 1.96 * gained.std() / math.sqrt(400)
    assert found.value == pytest.approx(gained.mean())
    assert (found.low, found.high) == pytest.approx(
        (gained.mean() - error, gained.mean() + error), abs=0.006
    )


def test_queries_are_drawn_within_their_category() -> None:
    """All of one category gain, and none of the other: nothing varies."""
    category = ["a"] * 20 + ["b"] * 10
    values = np.zeros((30, 2))
    values[:20, 0] = 1
    (found,) = difference_intervals(category, values, [(0, 1)], resamples=50)
    assert tuple(found) == (0.5, 0.5, 0.5)


def test_swapping_two_runs_changes_signs_alone() -> None:
    values = np.stack([hits(0.6), hits(0.5), hits(0.5)], axis=1)
    there, back, other = difference_intervals(
        ["a", "b"] * 200, values, [(0, 1), (1, 0), (1, 2)], resamples=500
    )
    assert tuple(back) == pytest.approx((-there.value, -there.high, -there.low))
    assert tuple(other) != tuple(back)


@pytest.mark.parametrize("differing", [0, 1, FEW - 1])
def test_of_few_differences_the_interval_counts_some_more(differing: int) -> None:
    values = np.zeros((100, 2))
    values[:differing, 0] = 1
    (found,) = difference_intervals(["a"] * 100, values, [(0, 1)])
    assert found == gain_interval([values[:, 0]])
    assert found.low < found.value < found.high


def test_a_single_query_has_an_interval() -> None:
    (found,) = difference_intervals(["a"], np.array([[1.0, 0.0]]), [(0, 1)])
    assert found.value == 1
    assert found.low < 0.5


def test_wins_losses_and_their_odds() -> None:
    outcome = outcome_of(np.array([3, 0, -1, 7, 0, 1]))
    assert (outcome, outcome.odds) == ((3, 1, 2), 3.0)
    assert outcome_of(np.array([1.0])).odds == math.inf
    assert outcome_of(np.zeros(3)).odds is None


def test_a_standardised_difference_is_cohens() -> None:
    differences = RNG.normal(0.3, 1, size=50)
    expected = differences.mean() / differences.std()
    assert standardised_difference(["a"] * 50, differences) == pytest.approx(expected)
    assert standardised_difference(["a"] * 50, -differences) == pytest.approx(-expected)
    assert standardised_difference(["a"], np.zeros(1)) == 0
    assert standardised_difference(["a", "b"], -np.ones(2)) == -math.inf
    category = ["a"] * 40 + ["b"] * 10
    mean = (differences[:40].mean() + differences[40:].mean()) / 2
    squares = (differences - mean) ** 2
    spread = math.sqrt((squares[:40].mean() + squares[40:].mean()) / 2)
    assert standardised_difference(category, differences) == pytest.approx(mean / spread)
