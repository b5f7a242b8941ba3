"""A cascade's order by its definition; and that a hit is lost up to the reach that says so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.cascade import below_best, cascade_ranks, reach_of_hits
from cir_core.errors import NonFiniteError
from cir_core.ordering import grouped_best_first

STEPS = st.integers(0, 3)
"""Of scores: few, so that there are ties."""

QUERIES = st.lists(
    st.lists(st.tuples(STEPS, STEPS), min_size=1, max_size=6), min_size=0, max_size=4
)
"""Of each candidate the exit's score and the full pass's; in gallery order, each query's first
candidate being its target."""


def columns(queries: list[list[tuple[int, int]]]) -> tuple[np.ndarray, ...]:
    group = np.repeat(np.arange(len(queries)), [len(one) for one in queries]).astype(int)
    pairs = np.array([pair for one in queries for pair in one], dtype=float).reshape(-1, 2)
    position = np.array([at for one in queries for at in range(len(one))], dtype=int)
    return group, position, pairs[:, 0], pairs[:, 1]


def plain_ranks(query: list[tuple[int, int]], reach: float) -> list[int]:
    best = max(early for early, _ in query)
    goes_on = [best - early <= reach for early, _ in query]
    key = [
        (not on, -(full if on else early), at)
        for at, ((early, full), on) in enumerate(zip(query, goes_on, strict=True))
    ]
    return [1 + sorted(key).index(one) for one in key]


@given(QUERIES, st.sampled_from([0.0, 1.0, 2.0, np.inf]), st.sets(st.integers(1, 5)))
def test_dropped_candidates_follow_and_a_hit_is_lost_up_to_its_reach(
    queries: list[list[tuple[int, int]]], reach: float, ks: set[int]
) -> None:
    group, position, early, full = columns(queries)
    below = below_best(group, early)
    goes_on = below <= reach
    known = np.where(goes_on, full, np.nan)  # nobody has scored the others
    ranks = cascade_ranks(group, goes_on, early, known, position)
    assert ranks.tolist() == [rank for query in queries for rank in plain_ranks(query, reach)]
    order, sorted_ranks = grouped_best_first(group, full, position)
    full_ranks = sorted_ranks[np.argsort(order)]
    if reach == np.inf:
        np.testing.assert_array_equal(ranks, full_ranks)
    target = np.flatnonzero(position == 0)
    alone = cascade_ranks(group, np.zeros(len(group), dtype=bool), early, known, position)
    safe = reach_of_hits(below[target], alone[target], full_ranks[target], sorted(ks))
    for row, least in zip(target, safe, strict=True):
        lost = any(full_ranks[row] <= k < ranks[row] for k in ks)
        assert lost == (reach < least)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="scores of an exit"):
        below_best(np.zeros(2, dtype=int), np.array([1.0, np.nan]))
