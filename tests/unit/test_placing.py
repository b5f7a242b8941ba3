"""MRR and CIRCO's mAP: by hand, against the formula written out, and by their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.metrics.placing import (
    AllTargetRanks,
    average_precision,
    mean_average_precision,
    reciprocal_rank_metrics,
)
from cir_core.metrics.recall import TargetRanks

RANKS = st.sets(st.integers(1, 60), min_size=1, max_size=8).map(sorted)
KS = (5, 10, 25, 50)


def by_formula(ranks: list[int], k: int) -> float:
    """Position by position: precision at every place that holds a ground truth."""
    total, hits = 0.0, 0
    for place in range(1, k + 1):
        if place in ranks:
            hits += 1
            total += hits / place
    return total / min(len(ranks), k)


def test_average_precision_by_hand() -> None:
    # ground truths at 1, 3 and 12: at k = 5, (1/1 + 2/3) / 3
    assert average_precision(np.array([12, 3, 1]), 5) == pytest.approx((1 + 2 / 3) / 3)
    # seven ground truths, k = 5: the denominator is 5
    assert average_precision(np.arange(1, 8), 5) == 1.0
    assert average_precision(np.array([6]), 5) == 0.0
    with pytest.raises(ValueError, match="ground truth"):
        average_precision(np.array([], dtype=int), 5)


@given(RANKS, st.sampled_from(KS))
def test_average_precision_is_the_formula(ranks: list[int], k: int) -> None:
    assert average_precision(np.array(ranks), k) == pytest.approx(by_formula(ranks, k), abs=1e-12)


@given(st.integers(1, 60), st.sampled_from(KS))
def test_with_one_target_it_is_the_reciprocal_rank(rank: int, k: int) -> None:
    wanted = 1 / rank if rank <= k else 0.0
    assert average_precision(np.array([rank]), k) == pytest.approx(wanted)


@given(st.lists(st.tuples(RANKS, RANKS), min_size=1, max_size=6))
def test_map_is_the_mean_over_queries_and_its_gain_is_paired(
    queries: list[tuple[list[int], list[int]]],
) -> None:
    ranks = AllTargetRanks(
        category=["circo"] * len(queries),
        stage1=[np.array(before) for before, _ in queries],
        stage2=[np.array(after) for _, after in queries],
    )
    found = {(m.stage, m.k): m.value for m in mean_average_precision(ranks, ks=KS)}
    for k in KS:
        before = np.mean([by_formula(one, k) for one, _ in queries])
        after = np.mean([by_formula(one, k) for _, one in queries])
        assert found["stage1", k] == pytest.approx(before, abs=1e-12)
        assert found["stage2", k] == pytest.approx(after, abs=1e-12)
        assert found["gain", k] == pytest.approx(after - before, abs=1e-12)


def test_mrr_is_macro_and_micro_averaged() -> None:
    ranks = TargetRanks(["a", "a", "b"], np.array([1, 2, 4]), np.array([1, 1, 2]))
    found = {(m.category, m.stage): m.value for m in reciprocal_rank_metrics(ranks)}
    assert found["a", "stage1"] == 0.75
    assert found["average", "stage1"] == (0.75 + 0.25) / 2
    assert found["micro", "stage1"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert found["average", "gain"] == pytest.approx((1 + 0.5) / 2 - 0.5)
