"""Exact search against a sort of exact integer products, and against the order it promises."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cir_core.errors import NonFiniteError
from cir_core.retrieval import exact
from cir_core.retrieval.exact import Retrieved, search

Vectors = list[list[int]]


class Question(NamedTuple):
    """Small integers as vectors: their products are exact and often equal."""

    queries: Vectors
    gallery: Vectors
    removed: list[int | None]
    targets: list[tuple[int, ...]]
    k: int


@st.composite
def questions(draw: st.DrawFn) -> Question:
    width = draw(st.integers(1, 3))
    vector = st.lists(st.integers(-1, 1), min_size=width, max_size=width)
    queries = draw(st.lists(vector, max_size=5))
    gallery = draw(st.lists(vector, min_size=1, max_size=9))
    row = st.integers(0, len(gallery) - 1)
    removed = [draw(st.none() | row) for _ in queries]
    targets = [
        tuple(target for target in draw(st.lists(row, max_size=3)) if target != own)
        for own in removed
    ]
    return Question(queries, gallery, removed, targets, draw(st.integers(1, 12)))


def ask(question: Question) -> list[Retrieved]:
    width = len(question.gallery[0])
    return list(
        search(
            np.array(question.queries, dtype=np.float32).reshape(-1, width),
            np.array(question.gallery, dtype=np.float32),
            k=question.k,
            removed=question.removed,
            targets=question.targets,
        )
    )


@given(questions(), st.integers(1, 4))
@settings(deadline=None)
def test_search_is_a_sort_of_the_gallery_cut_at_k(question: Question, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "QUERY_BLOCK", block)
        found = ask(question)
    assert len(found) == len(question.queries)
    for query, removed, targets, answer in zip(
        question.queries, question.removed, question.targets, found, strict=True
    ):
        scores = [sum(q * g for q, g in zip(query, row, strict=True)) for row in question.gallery]
        order = sorted(
            (row for row in range(len(scores)) if row != removed), key=lambda r: (-scores[r], r)
        )
        assert answer.rows.tolist() == order[: question.k]
        assert answer.scores.tolist() == [scores[row] for row in order[: question.k]]
        assert answer.target_ranks == tuple(1 + order.index(target) for target in targets)


def test_a_cut_inside_a_tie_keeps_the_lower_gallery_rows() -> None:
    gallery = [[0], [1], [1], [2], [1], [1]]
    (answer,) = ask(Question([[1]], gallery, [None], [(5,)], k=3))
    assert answer.rows.tolist() == [3, 1, 2]
    assert answer.target_ranks == (5,)


def test_a_removed_reference_gives_its_place_to_the_next() -> None:
    gallery = [[2], [2], [1]]
    (answer,) = ask(Question([[1]], gallery, [0], [(1, 2)], k=2))
    assert answer.rows.tolist() == [1, 2]
    assert answer.target_ranks == (1, 2)


def test_fewer_than_k_images_are_all_returned() -> None:
    (answer,) = ask(Question([[1]], [[1], [2]], [None], [()], k=50))
    assert answer.rows.tolist() == [1, 0]


def test_a_gallery_of_the_reference_alone_answers_nothing() -> None:
    (answer,) = ask(Question([[1]], [[1]], [0], [()], k=3))
    assert answer.rows.size == answer.scores.size == 0
    assert answer.target_ranks == ()


def test_no_queries_no_answers() -> None:
    assert ask(Question([], [[1]], [], [], k=3)) == []


@pytest.mark.parametrize("side", ["query", "gallery"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_no_numbers_are_refused(side: str, value: float) -> None:
    vectors = {"query": np.ones((2, 3)), "gallery": np.ones((4, 3))}
    vectors[side][1, 2] = value
    with pytest.raises(NonFiniteError, match=f"{side} embeddings are not finite"):
        next(
            search(vectors["query"], vectors["gallery"], k=1, removed=[None] * 2, targets=[()] * 2)
        )


@pytest.mark.parametrize(("queries", "images"), [(1, 10), (7, 33), (100, 100)])
def test_equal_embeddings_tie_wherever_they_stand(queries: int, images: int) -> None:
    """A matrix product may round the same row differently in different columns."""
    rng = np.random.default_rng(0)
    gallery, twins = _unit(rng, images), [0, images // 2, images - 1]
    gallery[twins] = gallery[0]
    for answer in _search_all(_unit(rng, queries), gallery):
        places = [answer.rows.tolist().index(row) for row in twins]
        assert places == [places[0], places[0] + 1, places[0] + 2]
        assert len({answer.scores[place] for place in places}) == 1


@pytest.mark.parametrize("block", [1, 2, 7])
def test_scores_do_not_depend_on_the_block_of_queries(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    queries, gallery = _unit(rng, 15), _unit(rng, 33)
    expected = _search_all(queries, gallery)
    monkeypatch.setattr(exact, "QUERY_BLOCK", block)
    for found, whole in zip(_search_all(queries, gallery), expected, strict=True):
        assert found.rows.tolist() == whole.rows.tolist()
        assert found.scores.tolist() == whole.scores.tolist()


def _unit(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.standard_normal((count, 256)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _search_all(queries: np.ndarray, gallery: np.ndarray) -> list[Retrieved]:
    count = len(queries)
    nothing: list[tuple[int, ...]] = [()] * count
    return list(search(queries, gallery, k=len(gallery), removed=[None] * count, targets=nothing))
