"""The one order of scores, against Python's own sort of tuples."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.errors import NonFiniteError
from cir_core.ordering import best_first, grouped_best_first, require_finite

FEW_SCORES = st.sampled_from([-1.5, -0.0, 0.0, 0.25, np.float32(0.1), 3e38])
"""Few values, so that most lists hold ties; both zeros are equal."""

SCORES_AND_POSITIONS = st.lists(FEW_SCORES, max_size=12).flatmap(
    lambda scores: st.tuples(st.just(scores), st.permutations(range(len(scores))))
)


@given(SCORES_AND_POSITIONS)
def test_higher_scores_come_first_and_ties_follow_the_gallery(
    drawn: tuple[list[float], list[int]],
) -> None:
    scores, position = drawn
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], position[i]))
    found = best_first(np.array(scores, dtype=np.float32), np.array(position, dtype=int))
    assert found.tolist() == expected


@given(SCORES_AND_POSITIONS, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_the_inputs_order(
    drawn: tuple[list[float], list[int]], random: Random
) -> None:
    items = list(zip(*drawn, strict=True))
    shuffled = list(items)
    random.shuffle(shuffled)
    assert _positions_best_first(shuffled) == _positions_best_first(items)


def _positions_best_first(items: list[tuple[float, int]]) -> list[int]:
    scores = np.array([score for score, _ in items], dtype=float)
    positions = np.array([position for _, position in items], dtype=int)
    return positions[best_first(scores, positions)].tolist()


@given(SCORES_AND_POSITIONS, st.data())
def test_grouped_order_and_ranks_are_those_of_each_group_alone(
    drawn: tuple[list[float], list[int]], data: st.DataObject
) -> None:
    scores, position = drawn
    total = len(scores)
    group = data.draw(st.lists(st.integers(-1, 3), min_size=total, max_size=total))
    expected: list[int] = []
    expected_ranks: list[int] = []
    for name in sorted(set(group)):
        members = [i for i in range(total) if group[i] == name]
        members.sort(key=lambda i: (-scores[i], position[i]))
        expected += members
        expected_ranks += range(1, len(members) + 1)
    order, ranks = grouped_best_first(
        np.array(group, dtype=int), np.array(scores, dtype=float), np.array(position, dtype=int)
    )
    assert order.tolist() == expected
    assert ranks.tolist() == expected_ranks


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_score_that_is_no_number_is_refused(value: float, place: int) -> None:
    scores = np.array([0.5, 0.25, 0.5])
    scores[place] = value
    with pytest.raises(NonFiniteError, match="scores are not finite"):
        best_first(scores, np.arange(3))
    with pytest.raises(NonFiniteError, match="scores are not finite"):
        grouped_best_first(np.zeros(3, dtype=int), scores, np.arange(3))


def test_the_refusal_names_what_was_not_finite() -> None:
    require_finite(np.zeros((0, 3)), "nothing")
    with pytest.raises(NonFiniteError, match="query embeddings are not finite"):
        require_finite(np.array([[0.0, np.nan]]), "query embeddings")


def test_the_refusal_names_whose_values_those_are() -> None:
    values = np.array([[0.0], [np.inf], [1.0], [np.nan]])
    with pytest.raises(NonFiniteError) as caught:
        require_finite(values, "gallery embeddings", ["a", "b", "c", "d"])
    assert (caught.value.item, caught.value.exit_code) == ("b, d", 7)
