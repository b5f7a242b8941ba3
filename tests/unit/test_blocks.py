"""How pairs are cut into blocks: laws of a partition."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.rerankers.dual.blocks import plan_blocks

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=25)
"""Candidate and tokens."""
SIZES = st.integers(1, 30)


def planned(pairs: list[tuple[int, int]], most: int) -> list[list[int]]:
    columns = np.array(pairs, dtype=int).reshape(-1, 2)
    return [block.tolist() for block in plan_blocks(columns[:, 0], columns[:, 1], most)]


def tokens(pairs: list[tuple[int, int]], chosen: list[int]) -> int:
    return sum(pairs[index][1] for index in chosen)


@given(PAIRS, SIZES)
def test_every_pair_is_in_exactly_one_block(pairs: list[tuple[int, int]], most: int) -> None:
    blocks = planned(pairs, most)
    assert sorted(index for block in blocks for index in block) == list(range(len(pairs)))
    assert all(blocks)


@given(PAIRS, SIZES)
def test_a_block_above_the_limit_is_one_pair(pairs: list[tuple[int, int]], most: int) -> None:
    for block in planned(pairs, most):
        assert tokens(pairs, block) <= most or len(block) == 1


@given(PAIRS, SIZES)
def test_a_candidate_that_fits_is_in_one_block(pairs: list[tuple[int, int]], most: int) -> None:
    holders: dict[int, set[int]] = {}
    for number, block in enumerate(planned(pairs, most)):
        for index in block:
            holders.setdefault(pairs[index][0], set()).add(number)
    for candidate, blocks in holders.items():
        own = [index for index, pair in enumerate(pairs) if pair[0] == candidate]
        assert len(blocks) == 1 or tokens(pairs, own) > most


@given(PAIRS, SIZES)
def test_blocks_follow_the_candidates_and_are_sorted_by_length(
    pairs: list[tuple[int, int]], most: int
) -> None:
    blocks = planned(pairs, most)
    for block in blocks:
        lengths = [pairs[index][1] for index in block]
        assert lengths == sorted(lengths)
    for block, following in pairwise(blocks):
        assert max(pairs[i][0] for i in block) <= min(pairs[i][0] for i in following)


@given(PAIRS, SIZES)
def test_neighbouring_blocks_would_not_fit_into_one(
    pairs: list[tuple[int, int]], most: int
) -> None:
    blocks = planned(pairs, most)
    for block, following in pairwise(blocks):
        first = min(pairs[index][0] for index in following)
        whole = [index for index, pair in enumerate(pairs) if pair[0] == first]
        assert tokens(pairs, block) + tokens(pairs, whole) > most


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (4, [3, 4]), (7, [7]), (100, [7])]
)
def test_blocks_are_filled_in_gallery_order(most: int, sizes: list[int]) -> None:
    """Candidates 0, 1, 2, 3 with 2, 1, 3, 1 pairs of one token."""
    candidates = [2, 0, 3, 2, 1, 0, 2]
    blocks = planned([(candidate, 1) for candidate in candidates], most)
    assert [len(block) for block in blocks] == sizes


def test_no_pairs_no_blocks() -> None:
    assert planned([], 5) == []
