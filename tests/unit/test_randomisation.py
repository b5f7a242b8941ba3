"""The paired randomisation test beside other people's, and its laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cir_core.metrics import randomisation
from cir_core.metrics.multiplicity import holm, tied_with_best
from cir_core.metrics.randomisation import ROUNDS, macro_terms, sign_flip_tests

RNG = np.random.default_rng(7)


def p_of(terms: np.ndarray, **asked: int) -> float:
    (tested,) = sign_flip_tests([terms], **asked)
    return tested.p


def tried(terms: np.ndarray) -> float:
    """By all signs, one after the other."""
    total = abs(terms.sum())
    signs = itertools.product((-1, 1), repeat=len(terms))
    return float(np.mean([abs(np.dot(one, terms)) >= total - 1e-12 for one in signs]))


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (9, 2), (30, 30), (170, 120), (6, 0)])
def test_of_recall_it_is_mcnemars_exact_test(wins: int, losses: int) -> None:
    terms = np.repeat([1.0, -1.0, 0.0], [wins, losses, 50]) / (wins + losses + 50)
    both = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert p_of(terms) == pytest.approx(both, rel=1e-9)


def test_a_thousand_times_more_queries_are_as_exact() -> None:
    terms = np.repeat([1.0, -1.0], [3_200, 2_800])
    expected = stats.binomtest(3_200, 6_000).pvalue
    assert p_of(terms) == pytest.approx(expected, rel=1e-9)
    assert 0 < p_of(np.ones(6_000)) < 1e-300


@pytest.mark.parametrize("seed", range(4))
def test_of_few_differences_all_signs_are_tried(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(size=10) + 0.4
    (tested,) = sign_flip_tests([differences])
    assert tested.rounds is None
    assert tested.p == pytest.approx(tried(differences))
    theirs = stats.permutation_test(
        (differences, np.zeros(10)),
        lambda first, second, axis: np.mean(first - second, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert tested.p == pytest.approx(theirs.pvalue)


def test_categories_weigh_the_same_whatever_their_size() -> None:
    category = ["a"] * 6 + ["b"] * 3
    differences = np.array([1, 1, 0, -1, 1, 1, 1, 0, -1.0])
    terms = macro_terms(category, differences)
    assert terms.sum() == pytest.approx((3 / 6 + 0 / 3) / 2)
    assert p_of(terms) == pytest.approx(tried(terms))
    assert p_of(terms) != pytest.approx(p_of(differences))


def test_many_repeated_terms_of_three_categories_are_tried_in_two_halves() -> None:
    sizes = np.repeat([0.2, 0.3, 0.5], [60, 80, 300])
    terms = sizes * RNG.choice([-1, 1, 1], size=len(sizes))
    (exact,) = sign_flip_tests([terms])
    assert exact.rounds is None
    signs = RNG.choice([-1.0, 1.0], size=(10_000, len(sizes)))
    by_chance = np.mean(np.abs(signs @ sizes) >= abs(terms.sum()) - 1e-9)
    assert exact.p == pytest.approx(by_chance, abs=4 * math.sqrt(0.25 / 10_000))


def test_many_different_terms_are_drawn_and_counted_with_the_observed_one() -> None:
    terms = RNG.normal(0.05, 1, size=400)
    (drawn,) = sign_flip_tests([terms])
    assert drawn.rounds == ROUNDS
    normal = 2 * stats.norm.sf(abs(terms.sum()) / np.sqrt((terms**2).sum()))
    assert drawn.p == pytest.approx(normal, abs=0.015)
    assert p_of(np.abs(terms), rounds=99) == 1 / 100
    assert p_of(terms, seed=1) == pytest.approx(drawn.p, abs=0.015)


@pytest.mark.parametrize("size", [7, 300])
def test_neither_order_nor_sides_change_p(size: int) -> None:
    terms = np.where(RNG.random(size) < 0.3, 0, RNG.normal(0.1, 1, size=size))
    p = p_of(terms, rounds=500)
    assert p_of(-terms, rounds=500) == p
    assert p_of(RNG.permutation(terms), rounds=500) == p
    assert p_of(np.append(terms, np.zeros(50)), rounds=500) == p
    others = sign_flip_tests([RNG.normal(size=400), terms, terms[:3]], rounds=500)
    assert others[1].p == p


@pytest.mark.parametrize("size", [0, 5, 3_000])
def test_where_nothing_differs_p_is_one(size: int) -> None:
    assert p_of(np.zeros(size)) == 1.0
    balanced = np.concatenate([np.linspace(0.1, 1, size), -np.linspace(0.1, 1, size)])
    assert p_of(balanced, rounds=99) == 1.0


def test_under_the_null_p_is_as_often_small_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn and exact."""
    sizes = RNG.exponential(size=(60, 300))
    for states in (randomisation.STATES, (1, 1)):
        monkeypatch.setattr(randomisation, "STATES", states)
        terms = [one * RNG.choice([-1, 1], size=60) for one in sizes.T]
        small = np.mean([tested.p <= 0.1 for tested in sign_flip_tests(terms, rounds=199)])
        assert small == pytest.approx(0.1, abs=3.5 * math.sqrt(0.09 / 300))


# --- several tests


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holms_p_values_allow_for_the_number_of_tests(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    expected = np.minimum(
        1,
        np.maximum.accumulate((len(p_values) - np.arange(len(order))) * np.array(p_values)[order]),
    )
    assert [adjusted[place] for place in order] == pytest.approx(list(expected))
    assert all(theirs >= mine for theirs, mine in zip(adjusted, p_values, strict=True))


def test_holms_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_who_is_tied_with_the_best() -> None:
    differs = {(0, 1): True, (0, 2): False, (1, 2): False}
    assert tied_with_best([0.5, 0.4, 0.45], differs) == (0, frozenset({0, 2}))
    assert tied_with_best([0.5, 0.5, 0.5], dict.fromkeys(differs, False)) == (
        0,
        frozenset({0, 1, 2}),
    )
    assert tied_with_best([0.5], {}) == (0, frozenset({0}))
