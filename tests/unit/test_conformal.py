"""Thresholds for adaptive K: what is assured, worked out by hand and over many random draws."""

from collections import Counter
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cir_core.conformal import Assurance, fold_of, threshold
from cir_core.errors import UsageError

DRAWS = 1_000
"""Of calibration queries."""

SHARES = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])
RISKS = st.sampled_from([0.05, 0.1, 0.3])


def gaps_of(kind: str, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """As of the demo, whose targets are first for two queries in three; with a heavy tail, of which
    no mean exists; in few steps, with ties; and of which one in a hundred cannot be found."""
    uniform = rng.random(size)
    if kind == "often first":
        return np.where(uniform < 0.69, 0.0, rng.exponential(0.05, size))
    if kind == "heavy tail":
        return rng.pareto(0.8, size)
    if kind == "ties":
        return rng.geometric(0.2, size).astype(float)
    return np.where(uniform < 0.01, np.inf, rng.exponential(1.0, size))


KINDS = ("often first", "heavy tail", "ties", "some are lost")


@pytest.mark.parametrize("coverage", [0.8, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_conformal_risk_control_misses_no_more_than_it_says(kind: str, coverage: float) -> None:
    """The mean over draws of calibration queries, and of the queries to come."""
    n, to_come = 137, 200
    rng = np.random.default_rng(1)
    calibration = gaps_of(kind, rng, (DRAWS, n))
    later = gaps_of(kind, rng, (DRAWS, to_come))
    reach = np.array([threshold(gaps, Assurance(coverage)) for gaps in calibration], dtype=float)
    missed = ((later > reach[:, None]) | np.isinf(later)).mean(axis=1)
    error = 4 * missed.std() / np.sqrt(DRAWS)
    assert missed.mean() <= 1 - coverage + error
    if kind == "heavy tail":  # no ties: the bound is tight
        assert missed.mean() >= 1 - coverage - 1 / (n + 1) - error


@pytest.mark.parametrize("risk", [0.05, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_risk_of_a_threshold_that_covers_less_is_no_more_than_it_says(
    kind: str, risk: float
) -> None:
    """The true share that a threshold misses is counted over a million queries."""
    n, coverage = 137, 0.9
    rng = np.random.default_rng(2)
    calibration = gaps_of(kind, rng, (DRAWS, n))
    everybody = np.sort(gaps_of(kind, rng, (1_000_000,)))
    assured = Assurance(coverage, risk)
    reach = np.array([threshold(gaps, assured) for gaps in calibration], dtype=float)
    covered = np.searchsorted(everybody, reach, side="right") / len(everybody)
    violated = (covered < coverage - 1e-3).mean()
    assert violated <= risk + 4 * np.sqrt(risk * (1 - risk) / DRAWS)
    if kind == "heavy tail":
        assert violated > risk / 4, "the bound is not idle"


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 150), coverage=SHARES, risk=st.none() | RISKS)
def test_the_misses_are_the_most_that_the_theorems_allow(
    n: int, coverage: float, risk: float | None
) -> None:
    assured = Assurance(coverage, risk)
    alpha = 1 - Fraction(str(coverage))

    def is_allowed(misses: int) -> bool:
        if risk is None:
            return Fraction(misses + 1, n + 1) <= alpha
        p = float(alpha)
        return sum(comb(n, m) * p**m * (1 - p) ** (n - m) for m in range(misses + 1)) <= risk

    allowed = [misses for misses in range(n + 1) if is_allowed(misses)]
    assert assured.most_missed(n) == (allowed[-1] if allowed else None)
    assert (n < assured.least_queries) == (not allowed)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, np.inf]), min_size=19, max_size=60),
    coverage=st.sampled_from([0.5, 0.8, 0.95]),
)
def test_a_threshold_is_the_smallest_that_is_allowed(gaps: list[float], coverage: float) -> None:
    assured, found = Assurance(coverage), np.array(gaps)
    reach, most = threshold(found, assured), assured.most_missed(len(gaps))
    assert reach is not None
    assert most is not None
    assert (found > reach).sum() <= most
    assert reach == 0 or (found >= reach).sum() > most, "a smaller one misses too many"


def test_none_that_violates_is_not_the_first() -> None:
    assert threshold(np.zeros(50), Assurance(0.9)) == 0.0


def test_what_cannot_be_found_counts_and_too_few_are_too_few() -> None:
    lost = np.r_[np.zeros(90), np.full(10, np.inf)]
    assert threshold(lost, Assurance(0.85)) == 0.0
    assert threshold(lost, Assurance(0.9)) == np.inf
    assert threshold(np.zeros(18), Assurance(0.95)) is None
    assert threshold(np.zeros(19), Assurance(0.95)) == 0.0
    assert threshold(np.zeros(0), Assurance(0.5)) is None
    assert [Assurance(0.95).least_queries, Assurance(0.9).least_queries] == [19, 9]
    assert Assurance(0.95, 0.1).least_queries == 45  # 0.95 ** 45 < 0.1 < 0.95 ** 44


@pytest.mark.parametrize("values", [(0.0, None), (1.0, None), (1.5, None), (0.9, 0.0), (0.9, 1.0)])
def test_what_cannot_be_assured_is_refused(values: tuple[float, float | None]) -> None:
    with pytest.raises(UsageError):
        Assurance(*values)


def test_folds_are_halves_and_a_querys_own() -> None:
    counts = Counter(fold_of(f"query {number}") for number in range(2_000))
    assert set(counts) == {0, 1}
    assert abs(counts[0] - 1_000) < 4 * np.sqrt(500)
    assert fold_of("\ud800 is no text") in (0, 1)
