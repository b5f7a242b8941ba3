"""Late fusion: standardised or raw sums of both stages' scores, and their ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.late_fusion import WEIGHTS, fused_scores, standardised, weights_to_try
from cir_core.ordering import grouped_best_first

GROUP = np.array([0, 0, 0, 1, 1, 2])
POSITION = np.array([0, 1, 2, 0, 1, 0])
STAGE1 = np.array([0.1, 0.3, 0.2, 0.7, 0.7, 0.4], np.float32)
STAGE2 = np.array([2.0, -1.0, 5.0, 0.25, 1.25, 9.0], np.float32)


def test_standardised_scores_have_mean_0_and_deviation_1() -> None:
    found = standardised(STAGE2, GROUP, POSITION)
    expected = (STAGE2[:3].astype(float) - 2) / np.std([2, -1, 5])
    assert found[:3] == pytest.approx(expected, rel=1e-12)
    assert found[3:5] == pytest.approx([-1, 1])
    assert found.dtype == np.float64


@pytest.mark.parametrize("value", [0.1, -7.3, 0.0, 1e-30])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_scores_that_do_not_differ_say_nothing(value: float, count: int) -> None:
    """The mean of seven times fp32's 0.1 is not 0.1; divided by what is left, it would be 1."""
    scores = np.full(count, value, np.float32)
    zeros = np.zeros(count, int)
    assert (standardised(scores, zeros, np.arange(count)) == 0).all()
    other = np.arange(count, dtype=np.float32)
    fused = fused_scores(scores, other, zeros, np.arange(count), weight=3, scale="standardised")
    assert (np.diff(fused) > 0).all()


def test_raw_scores_are_added_as_they_are() -> None:
    found = fused_scores(STAGE1, STAGE2, GROUP, POSITION, weight=2.5, scale="raw")
    assert found == pytest.approx(STAGE2.astype(float) + 2.5 * STAGE1.astype(float), rel=1e-15)


@pytest.mark.parametrize("scale", ["standardised", "raw"])
def test_weight_0_is_stage_2s_order_and_a_large_one_stage_1s(scale: str) -> None:
    for weight, wanted in ((0.0, STAGE2), (1e6, STAGE1)):
        fused = fused_scores(STAGE1, STAGE2, GROUP, POSITION, weight=weight, scale=scale)  # type: ignore[arg-type]
        mine, _ = grouped_best_first(GROUP[:3], fused[:3], POSITION[:3])
        theirs, _ = grouped_best_first(GROUP[:3], wanted[:3], POSITION[:3])
        assert mine.tolist() == theirs.tolist()


@given(st.data())
def test_neither_the_rows_order_nor_other_queries_change_a_score(data: st.DataObject) -> None:
    """Bit for bit; and pairs that are equal in both stages tie exactly."""
    size = data.draw(st.integers(1, 30))
    values = st.lists(st.floats(-5, 5, width=16), min_size=size, max_size=size)
    one, two = (np.array(data.draw(values), np.float32) for _ in range(2))
    group = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    position, shuffled = np.arange(size), np.random.default_rng(size).permutation(size)
    found = fused_scores(one, two, group, position, weight=0.7, scale="standardised")
    again = fused_scores(
        *(each[shuffled] for each in (one, two, group, position)), weight=0.7, scale="standardised"
    )
    assert (again == found[shuffled]).all()
    mine = group == group[0]
    alone = fused_scores(
        one[mine], two[mine], group[mine], position[mine], weight=0.7, scale="standardised"
    )
    assert (alone == found[mine]).all()
    for first in range(size):
        same = (group == group[first]) & (one == one[first]) & (two == two[first])
        assert (found[same] == found[first]).all()


def test_weights_of_raw_scores_follow_their_spread() -> None:
    assert weights_to_try(STAGE1, STAGE2, GROUP, POSITION, "standardised") == WEIGHTS
    wide = weights_to_try(STAGE1, 10 * STAGE1, GROUP, POSITION, "raw")
    assert wide == pytest.approx([10 * weight for weight in WEIGHTS], rel=1e-2)
    flat = weights_to_try(np.zeros_like(STAGE1), STAGE2, GROUP, POSITION, "raw")
    assert flat == WEIGHTS


def test_of_no_pairs_there_are_no_scores() -> None:
    none, nowhere = np.zeros(0, np.float32), np.zeros(0, int)
    assert fused_scores(none, none, nowhere, nowhere, weight=1, scale="standardised").size == 0
    assert weights_to_try(none, none, nowhere, nowhere, "raw") == WEIGHTS
