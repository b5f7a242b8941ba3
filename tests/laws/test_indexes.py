"""An index answers with a sort of all pairs by definition, cut at k, whatever its blocks.

The definition is written here anew: ``math.fsum`` adds the products, each of which fp64 holds
exactly, without any rounding before the last.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import fsum
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cir_core.search import blocks, exact, ranks, scores, within
from cir_core.search.candidates import NONE_REMOVED, Candidates
from cir_core.search.choice import IndexChoice
from cir_core.search.indexes import open_index
from cir_core.search.ranks import target_ranks
from cir_core.search.scores import Gallery

pytestmark = pytest.mark.numeric


class Question(NamedTuple):
    """Vectors of small integers: their products are exact, and often equal."""

    queries: np.ndarray
    gallery: np.ndarray
    removed: list[int]
    targets: list[tuple[int, int]]
    k: int


@st.composite
def questions(draw: st.DrawFn) -> Question:
    width = draw(st.integers(1, 3))
    vector = st.lists(st.integers(-1, 1), min_size=width, max_size=width)
    queries = draw(st.lists(vector, max_size=5))
    gallery = draw(st.lists(vector, min_size=1, max_size=30))
    row = st.integers(0, len(gallery) - 1)
    removed = [draw(st.just(NONE_REMOVED) | row) for _ in queries]
    targets = [
        (query, target)
        for query, own in enumerate(removed)
        for target in draw(st.lists(row, max_size=3))
        if target != own
    ]
    return Question(
        np.array(queries, dtype=np.float32).reshape(-1, width),
        np.array(gallery, dtype=np.float32),
        removed,
        targets,
        draw(st.integers(1, 35)),
    )


def expected_order(question: Question, query: int) -> list[tuple[int, float]]:
    """All gallery rows that may answer, best first, with their scores."""
    left = question.queries[query].astype(np.float64)
    score = [float(np.float32(fsum(left * right))) for right in question.gallery.astype(np.float64)]
    rows = [row for row in range(len(score)) if row != question.removed[query]]
    rows.sort(key=lambda row: (-score[row], row))
    return [(row, score[row]) for row in rows]


def found_order(found: Candidates, query: int) -> list[tuple[int, float]]:
    mine = found.queries == query
    assert found.ranks[mine].tolist() == list(range(1, mine.sum() + 1))
    return list(zip(found.images[mine].tolist(), found.scores[mine].tolist(), strict=True))


def search(question: Question, choice: IndexChoice) -> Candidates:
    index = open_index(Gallery(question.gallery), choice)
    removed = np.array(question.removed, dtype=np.int64)
    return index.search(question.queries, k=question.k, removed=removed)


@contextmanager
def small_blocks(queries: int, images: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (exact, ranks):
            patch.setattr(module, "QUERIES_AT_ONCE", queries)
        for module in (exact, scores):
            patch.setattr(module, "IMAGES_AT_ONCE", images)
        patch.setattr(blocks, "LEAST_QUERIES", 1)
        yield


@given(questions(), st.integers(1, 3), st.integers(1, 8))
@settings(deadline=None)
def test_exact_search_is_a_sort_of_the_gallery_cut_at_k(
    question: Question, queries: int, images: int
) -> None:
    with small_blocks(queries, images):
        found = search(question, IndexChoice())
        places = target_ranks(
            question.queries,
            Gallery(question.gallery),
            found,
            removed=np.array(question.removed, dtype=np.int64),
            target_queries=np.array([query for query, _ in question.targets], dtype=np.int64),
            target_images=np.array([target for _, target in question.targets], dtype=np.int64),
        )
    orders = [expected_order(question, query) for query in range(len(question.queries))]
    for query, order in enumerate(orders):
        assert found_order(found, query) == order[: question.k]
    assert found.queries.tolist() == sorted(found.queries.tolist())
    rows = [[row for row, _ in order] for order in orders]
    assert places.tolist() == [1 + rows[query].index(target) for query, target in question.targets]


@given(questions(), st.sampled_from([0.0, 1e-6, 0.3, 2.0, np.inf]), st.integers(1, 4))
@settings(deadline=None)
def test_candidates_within_reach_are_the_gallerys_that_score_so_high(
    question: Question, reach: float, first: int
) -> None:
    """However many neighbours are asked for at first, or held at once."""
    rng = np.random.default_rng(first)
    reaches = np.where(rng.random(len(question.queries)) < 0.5, reach, reach / 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(within, "FIRST_K", first)
        patch.setattr(within, "PAIRS_AT_ONCE", 2 * first)
        found = within.search_within(
            open_index(Gallery(question.gallery), IndexChoice()),
            question.queries,
            reach=reaches,
            removed=np.array(question.removed, dtype=np.int64),
            images=len(question.gallery),
        )
    assert found.queries.tolist() == sorted(found.queries.tolist())
    for query, mine in enumerate(reaches):
        order = expected_order(question, query)
        assert found_order(found, query) == [one for one in order if order[0][1] - one[1] <= mine]


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-7, 0.0])
@pytest.mark.parametrize(("k", "images"), [(1, 16), (20, 16), (20, 7), (150, 64), (400, 100)])
def test_near_ties_are_decided_by_definition(spread: float, k: int, images: int) -> None:
    """Where scores lie closer than fp32 products can tell, and where all are the same.

    Numbers are multiples of 2^-23 and 2^-20: their sums are exact in float64, in any order.
    """
    rng = np.random.default_rng(k)
    gallery = rng.standard_normal(64) + spread * rng.standard_normal((300, 64))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    gallery = (np.round(gallery * 2**23) / 2**23).astype(np.float32)
    queries = (np.round(rng.standard_normal((3, 64)) * 2**20) / 2**20).astype(np.float32)
    question = Question(queries, gallery, [NONE_REMOVED, 5, 299], [], k)
    with small_blocks(2, images):
        found = search(question, IndexChoice())
    for query in range(3):
        assert found_order(found, query) == expected_order(question, query)[:k]


@given(questions(), st.sampled_from([IndexChoice("flat"), IndexChoice("ivf")]))
@settings(deadline=None)
def test_faiss_finds_the_same_scores_and_orders_them_alike(
    question: Question, choice: IndexChoice
) -> None:
    """Which of many images that tie at the cut are found is FAISS's; their scores are not."""
    found = search(question, choice)
    for query in range(len(question.queries)):
        order, mine = expected_order(question, query), found_order(found, query)
        assert [score for _, score in mine] == [score for _, score in order[: question.k]]
        assert mine == [pair for pair in order if pair in mine]


@pytest.mark.parametrize("k", [1, 10, 700])
@pytest.mark.parametrize("choice", [IndexChoice("flat"), IndexChoice("ivf", 12, 12)])
def test_on_random_vectors_faiss_answers_as_the_exact_search(choice: IndexChoice, k: int) -> None:
    rng = np.random.default_rng(7)
    queries, gallery = (rng.standard_normal((n, 32)).astype(np.float32) for n in (40, 600))
    gallery[300:310] = gallery[0]
    removed = [query if query % 3 else NONE_REMOVED for query in range(40)]
    question = Question(queries, gallery, removed, [], k)
    exhaustive, found = search(question, IndexChoice()), search(question, choice)
    assert found.queries.tolist() == exhaustive.queries.tolist()
    assert found.ranks.tolist() == exhaustive.ranks.tolist()
    assert found.scores.tolist() == exhaustive.scores.tolist()
    if k > 1:  # one of eleven copies may be first, and FAISS keeps the last ones
        assert found.images.tolist() == exhaustive.images.tolist()


def test_more_probes_find_more() -> None:
    rng = np.random.default_rng(8)
    queries, gallery = (rng.standard_normal((n, 16)).astype(np.float32) for n in (50, 800))
    question = Question(queries, gallery, [NONE_REMOVED] * 50, [], 10)
    exhaustive = search(question, IndexChoice())
    wanted = set(zip(exhaustive.queries.tolist(), exhaustive.images.tolist(), strict=True))
    recall = []
    for probes in (1, 4, 16, 20):
        found = search(question, IndexChoice("ivf", 20, probes))
        pairs = set(zip(found.queries.tolist(), found.images.tolist(), strict=True))
        recall.append(len(pairs & wanted) / len(wanted))
    assert recall == sorted(recall)
    assert recall[0] < 1
    assert recall[-1] == 1
