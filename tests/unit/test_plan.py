"""How pairs are cut into blocks: laws of a partition."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.rerank.plan import plan_blocks

CANDIDATES = st.lists(st.integers(0, 6), max_size=25)
SIZES = st.integers(1, 9)


@given(CANDIDATES, SIZES)
def test_every_pair_is_in_exactly_one_block(candidates: list[int], most: int) -> None:
    blocks = plan_blocks(np.array(candidates, dtype=int), most)
    planned = [pair for block in blocks for pair in block.pairs.tolist()]
    assert sorted(planned) == list(range(len(candidates)))
    assert all(block.pairs.size for block in blocks)


@given(CANDIDATES, SIZES)
def test_a_candidate_is_in_one_block_only(candidates: list[int], most: int) -> None:
    blocks = plan_blocks(np.array(candidates, dtype=int), most)
    listed = [candidate for block in blocks for candidate in block.candidates.tolist()]
    assert listed == sorted(set(candidates))


@given(CANDIDATES, SIZES)
def test_a_block_names_the_candidate_of_each_of_its_pairs(candidates: list[int], most: int) -> None:
    for block in plan_blocks(np.array(candidates, dtype=int), most):
        named = block.candidates[block.candidate_of_pair].tolist()
        assert named == [candidates[pair] for pair in block.pairs]
        assert set(named) == set(block.candidates.tolist())


@given(CANDIDATES, SIZES)
def test_a_block_above_the_limit_is_one_candidate(candidates: list[int], most: int) -> None:
    blocks = plan_blocks(np.array(candidates, dtype=int), most)
    assert all(len(block.pairs) <= most or len(block.candidates) == 1 for block in blocks)


@given(CANDIDATES, SIZES)
def test_neighbouring_blocks_would_not_fit_into_one(candidates: list[int], most: int) -> None:
    blocks = plan_blocks(np.array(candidates, dtype=int), most)
    for block, following in pairwise(blocks):
        first_of_following = candidates.count(int(following.candidates[0]))
        assert len(block.pairs) + first_of_following > most


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [2, 1, 3, 1]), (3, [3, 3, 1]), (4, [3, 4]), (7, [7]), (100, [7])]
)
def test_blocks_are_filled_in_gallery_order(most: int, sizes: list[int]) -> None:
    """Candidates 0, 1, 2, 3 with 2, 1, 3, 1 pairs."""
    blocks = plan_blocks(np.array([2, 0, 3, 2, 1, 0, 2]), most)
    assert [len(block.pairs) for block in blocks] == sizes


def test_no_pairs_no_blocks() -> None:
    assert plan_blocks(np.array([], dtype=int), 5) == []
