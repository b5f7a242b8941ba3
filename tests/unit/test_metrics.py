"""Recall, coverage, gain and their intervals, against small cases worked out by hand."""

from collections.abc import Sequence
from math import isclose, sqrt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cir_core.metrics.recall import (
    Metric,
    TargetRanks,
    cirr_average,
    coverage_metrics,
    recall_metrics,
)

Z = 1.959964
"""The normal distribution's 97.5 % point, from a printed table."""


def ranks(category: Sequence[str], stage1: Sequence[int], stage2: Sequence[int]) -> TargetRanks:
    return TargetRanks(category, np.array(stage1, dtype=int), np.array(stage2, dtype=int))


def table(metrics: list[Metric]) -> dict[tuple[str, str, int], Metric]:
    found = {(metric.category, metric.stage, metric.k): metric for metric in metrics}
    assert len(found) == len(metrics)
    return found


def check(metric: Metric, value: float, low: float, high: float, n: int) -> None:
    assert isclose(metric.value, value, abs_tol=1e-12)
    assert isclose(metric.ci_low, low, abs_tol=1e-6)
    assert isclose(metric.ci_high, high, abs_tol=1e-6)
    assert metric.n == n


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Where a share's score test just holds: the roots of (p - m)² = z² m (1 - m) / n in m."""
    low, high = np.roots([n + Z**2, -2 * hits - Z**2, hits**2 / n])[::-1]
    return max(0.0, float(low)), min(1.0, float(high))


def moved(up: int, down: int, n: int) -> tuple[float, float]:
    """The normal interval of the differences and two more, 1 and -1; variance over all n + 2."""
    differences = [1.0] * (up + 1) + [-1.0] * (down + 1) + [0.0] * (n - up - down)
    margin = Z * float(np.std(differences)) / sqrt(len(differences))
    middle = float(np.mean(differences))
    return max(-1.0, middle - margin), min(1.0, middle + margin)


GARMENTS = ranks(
    ["dress", "shirt", "dress", "dress", "dress", "shirt"],
    stage1=[1, 3, 6, 11, 60, 12],
    stage2=[2, 1, 1, 8, 60, 7],
)
"""dress: stage 1 ranks 1 6 11 60, stage 2 ranks 2 1 8 60; shirt: 3 12, then 1 7."""


def test_recall_is_the_share_of_targets_at_rank_k_or_better() -> None:
    found = table(recall_metrics(GARMENTS, ks=(1, 5, 10, 50), pool="gallery"))
    values = {key: metric.value for key, metric in found.items() if key[1] != "gain"}
    assert values == {
        ("dress", "stage1", 1): 1 / 4,
        ("dress", "stage1", 5): 1 / 4,
        ("dress", "stage1", 10): 2 / 4,
        ("dress", "stage1", 50): 3 / 4,
        ("dress", "stage2", 1): 1 / 4,
        ("dress", "stage2", 5): 2 / 4,
        ("dress", "stage2", 10): 3 / 4,
        ("dress", "stage2", 50): 3 / 4,
        ("shirt", "stage1", 1): 0 / 2,
        ("shirt", "stage1", 5): 1 / 2,
        ("shirt", "stage1", 10): 1 / 2,
        ("shirt", "stage1", 50): 2 / 2,
        ("shirt", "stage2", 1): 1 / 2,
        ("shirt", "stage2", 5): 1 / 2,
        ("shirt", "stage2", 10): 2 / 2,
        ("shirt", "stage2", 50): 2 / 2,
        # macro: (1/4 + 0) / 2 = 1/8, where the micro average is 1/6
        ("average", "stage1", 1): 1 / 8,
        ("average", "stage1", 5): 3 / 8,
        ("average", "stage1", 10): 1 / 2,
        ("average", "stage1", 50): 7 / 8,
        ("average", "stage2", 1): 3 / 8,
        ("average", "stage2", 5): 1 / 2,
        ("average", "stage2", 10): 7 / 8,
        ("average", "stage2", 50): 7 / 8,
        ("micro", "stage1", 1): 1 / 6,
        ("micro", "stage1", 5): 2 / 6,
        ("micro", "stage1", 10): 3 / 6,
        ("micro", "stage1", 50): 5 / 6,
        ("micro", "stage2", 1): 2 / 6,
        ("micro", "stage2", 5): 3 / 6,
        ("micro", "stage2", 10): 5 / 6,
        ("micro", "stage2", 50): 5 / 6,
    }
    assert {metric.n for metric in found.values() if metric.category == "dress"} == {4}
    assert {metric.n for metric in found.values() if metric.category == "shirt"} == {2}
    assert {metric.n for metric in found.values() if metric.category == "average"} == {6}


def test_shares_have_wilsons_interval() -> None:
    found = table(recall_metrics(GARMENTS, ks=(10,), pool="gallery"))
    check(found["dress", "stage1", 10], 1 / 2, *wilson(2, 4), 4)
    check(found["dress", "stage2", 10], 3 / 4, *wilson(3, 4), 4)
    check(found["shirt", "stage1", 10], 1 / 2, *wilson(1, 2), 2)
    check(found["shirt", "stage2", 10], 1, *wilson(2, 2), 2)
    check(found["micro", "stage1", 10], 1 / 2, *wilson(3, 6), 6)
    # both categories' hits vary by 1/4, so their mean by (1/4 / 4 + 1/4 / 2) / 2² = 3/64: as that
    # of 1/4 / (3/64) = 16/3 queries
    check(found["average", "stage1", 10], 1 / 2, *wilson(8 / 3, 16 / 3), 6)


def test_gains_have_the_interval_of_their_paired_differences() -> None:
    found = table(recall_metrics(GARMENTS, ks=(10,), pool="gallery"))
    check(found["dress", "gain", 10], 1 / 4, *moved(1, 0, 4), 4)
    check(found["shirt", "gain", 10], 1 / 2, *moved(1, 0, 2), 2)
    check(found["micro", "gain", 10], 1 / 3, *moved(2, 0, 6), 6)


def test_a_loss_is_a_negative_gain() -> None:
    found = table(recall_metrics(ranks(["c"] * 3, [1, 1, 2], [1, 2, 3]), ks=(1,), pool="gallery"))
    check(found["c", "gain", 1], -1 / 3, *moved(0, 1, 3), 3)


def test_one_category_has_no_average_and_one_query_no_certainty() -> None:
    metrics = recall_metrics(ranks(["cirr"], [3], [1]), ks=(1,), pool="gallery")
    assert [metric.category for metric in metrics] == ["cirr"] * 3
    before, after, gain = metrics
    check(before, 0, *wilson(0, 1), 1)
    check(after, 1, *wilson(1, 1), 1)
    check(gain, 1, *moved(1, 0, 1), 1)


def test_metrics_carry_the_name_and_pool_they_were_asked_for() -> None:
    metrics = recall_metrics(GARMENTS, ks=(2,), pool="subset", metric="recall_subset")
    assert {(m.pool, m.metric, m.k) for m in metrics} == {("subset", "recall_subset", 2)}
    assert {m.stage for m in metrics} == {"stage1", "stage2", "gain"}


def test_no_labelled_query_no_rows() -> None:
    nobody = ranks([], [], [])
    assert recall_metrics(nobody, ks=(1, 10), pool="gallery") == []
    assert coverage_metrics(nobody, k=50) == []
    assert cirr_average(nobody, nobody) == []


def test_coverage_is_stage_1s_share_of_targets_among_k() -> None:
    found = table(coverage_metrics(GARMENTS, k=11))
    check(found["dress", "stage1", 11], 3 / 4, *wilson(3, 4), 4)
    check(found["shirt", "stage1", 11], 1 / 2, *wilson(1, 2), 2)
    assert isclose(found["average", "stage1", 11].value, 5 / 8)
    assert {(m.pool, m.metric) for m in found.values()} == {("gallery", "coverage")}


def test_cirr_average_is_the_mean_of_recall_5_and_subset_recall_1() -> None:
    gallery = ranks(["cirr"] * 4, stage1=[5, 6, 1, 90], stage2=[1, 5, 2, 90])
    subset = ranks(["cirr"] * 4, stage1=[1, 1, 2, 3], stage2=[1, 2, 1, 1])
    found = table(cirr_average(gallery, subset))
    # stage 1: (2/4 + 2/4) / 2; a query's share is 1, 1/2, 1/2, 0: variance 1/8, of three queries;
    # z² more vary by 1/4
    variance = (3 / 8 + Z**2 / 4) / (3 + Z**2)
    check(found["cirr", "stage1", 0], 1 / 2, *wilson(1 / 2 / variance, 1 / variance), 4)
    # stage 2: (3/4 + 3/4) / 2; a query's share is 1, 1/2, 1, 1/2: variance 1/16, others' 3/16
    variance = (3 / 16 + Z**2 * 3 / 16) / (3 + Z**2)
    n = 4 * 3 / 16 / variance
    check(found["cirr", "stage2", 0], 3 / 4, *wilson(n * 3 / 4, n), 4)
    assert {(m.pool, m.metric) for m in found.values()} == {("gallery", "cirr_average")}


RANKS = st.integers(1, 12)


@given(st.lists(st.tuples(st.sampled_from("ab"), RANKS, RANKS), min_size=1, max_size=12))
def test_recall_grows_with_k_and_is_a_share(queries: list[tuple[str, int, int]]) -> None:
    found = table(
        recall_metrics(ranks(*zip(*queries, strict=True)), ks=range(1, 13), pool="gallery")
    )
    for (category, stage, k), metric in found.items():
        assert metric.ci_low <= metric.value <= metric.ci_high
        if stage == "gain":
            difference = found[category, "stage2", k].value - found[category, "stage1", k].value
            assert isclose(metric.value, difference, abs_tol=1e-12)
            continue
        assert 0 <= metric.value <= 1
        assert k == 12 or metric.value <= found[category, stage, k + 1].value
    assert all(
        metric.value == 1 for (_, stage, k), metric in found.items() if (stage, k) == ("stage1", 12)
    )


@given(
    st.lists(st.tuples(st.sampled_from("ab"), RANKS), min_size=1, max_size=12),
    st.integers(1, 12),
    st.data(),
)
def test_no_order_of_the_candidates_beats_coverage(
    queries: list[tuple[str, int]], candidates: int, data: st.DataObject
) -> None:
    """Re-ranking permutes the first K; a target outside of them keeps its rank."""
    category, stage1 = zip(*queries, strict=True)
    stage2 = [
        data.draw(st.integers(1, candidates)) if rank <= candidates else rank for rank in stage1
    ]
    both = ranks(category, stage1, stage2)
    ceilings = {metric.category: metric.value for metric in coverage_metrics(both, k=candidates)}
    for metric in recall_metrics(both, ks=range(1, 13), pool="gallery"):
        if metric.stage == "stage2" and metric.k <= candidates:
            assert metric.value <= ceilings[metric.category]
        if metric.stage == "stage2" and metric.k == candidates:
            assert metric.value == ceilings[metric.category]
        if metric.stage == "gain" and metric.k >= candidates:
            assert metric.value == 0
