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


def check(metric: Metric, value: float, margin: float, n: int) -> None:
    assert isclose(metric.value, value, abs_tol=1e-12)
    assert isclose(metric.ci_low, value - margin, abs_tol=1e-6)
    assert isclose(metric.ci_high, value + margin, abs_tol=1e-6)
    assert metric.n == n


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


def test_the_interval_is_normal_with_the_samples_variance() -> None:
    found = table(recall_metrics(GARMENTS, ks=(10,), pool="gallery"))
    # dress, stage 1: hits 1 1 0 0; variance 4 * (1/2)² / 3 = 1/3; of the mean 1/12
    check(found["dress", "stage1", 10], 1 / 2, Z * sqrt(1 / 12), 4)
    # dress, stage 2: hits 1 1 1 0; variance (3 * (1/4)² + (3/4)²) / 3 = 1/4; of the mean 1/16
    check(found["dress", "stage2", 10], 3 / 4, Z * sqrt(1 / 16), 4)
    # shirt, stage 1: hits 1 0; variance 2 * (1/2)² / 1 = 1/2; of the mean 1/4
    check(found["shirt", "stage1", 10], 1 / 2, Z * sqrt(1 / 4), 2)
    # shirt, stage 2: all hit: no variance
    check(found["shirt", "stage2", 10], 1, 0, 2)
    # the categories' mean: variances of the means add, over 2²
    check(found["average", "stage1", 10], 1 / 2, Z * sqrt(1 / 12 + 1 / 4) / 2, 6)
    check(found["average", "stage2", 10], 7 / 8, Z * sqrt(1 / 16) / 2, 6)


def test_the_gains_interval_is_that_of_the_paired_differences() -> None:
    found = table(recall_metrics(GARMENTS, ks=(10,), pool="gallery"))
    # dress: differences 0 0 1 0; variance (3 * (1/4)² + (3/4)²) / 3 = 1/4; of the mean 1/16
    check(found["dress", "gain", 10], 1 / 4, Z * sqrt(1 / 16), 4)
    # shirt: differences 0 1; of the mean 1/4
    check(found["shirt", "gain", 10], 1 / 2, Z * sqrt(1 / 4), 2)
    check(found["average", "gain", 10], 3 / 8, Z * sqrt(1 / 16 + 1 / 4) / 2, 6)


def test_a_loss_is_a_negative_gain() -> None:
    found = table(recall_metrics(ranks(["c"] * 3, [1, 1, 2], [1, 2, 3]), ks=(1,), pool="gallery"))
    # differences 0 -1 0; variance (2 * (1/3)² + (2/3)²) / 2 = 1/3; of the mean 1/9
    check(found["c", "gain", 1], -1 / 3, Z / 3, 3)


def test_one_category_has_no_average_and_one_query_no_margin() -> None:
    metrics = recall_metrics(ranks(["cirr"], [3], [1]), ks=(1,), pool="gallery")
    assert [metric.category for metric in metrics] == ["cirr"] * 3
    for metric, value in zip(metrics, (0, 1, 1), strict=True):
        check(metric, value, 0, 1)


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
    check(found["dress", "stage1", 11], 3 / 4, Z * sqrt(1 / 16), 4)
    check(found["shirt", "stage1", 11], 1 / 2, Z * sqrt(1 / 4), 2)
    check(found["average", "stage1", 11], 5 / 8, Z * sqrt(1 / 16 + 1 / 4) / 2, 6)
    assert {(m.pool, m.metric) for m in found.values()} == {("gallery", "coverage")}


def test_cirr_average_is_the_mean_of_recall_5_and_subset_recall_1() -> None:
    gallery = ranks(["cirr"] * 4, stage1=[5, 6, 1, 90], stage2=[1, 5, 2, 90])
    subset = ranks(["cirr"] * 4, stage1=[1, 1, 2, 3], stage2=[1, 2, 1, 1])
    found = table(cirr_average(gallery, subset))
    # stage 1: (2/4 + 2/4) / 2; a query's share is 1, 1/2, 1/2, 0: variance of the mean 1/24
    check(found["cirr", "stage1", 0], 1 / 2, Z * sqrt(1 / 24), 4)
    # stage 2: (3/4 + 3/4) / 2; a query's share is 1, 1/2, 1, 1/2: variance of the mean 1/48
    check(found["cirr", "stage2", 0], 3 / 4, Z * sqrt(1 / 48), 4)
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
