"""TREC files: ids that stay one column, scores that part ties, relevance by protocol."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.errors import PreflightError
from cir_core.submissions.trec import escaped, parted, qrel_lines, run_lines, unescaped
from cir_core.types import ImageId, Query, QueryId

FP32 = st.floats(
    width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**99), max_value=2.0**99
)


@pytest.mark.parametrize(
    ("identifier", "column"),
    [
        ("B000ALGQSY", "B000ALGQSY"),
        ("dev-1-0-img0", "dev-1-0-img0"),
        ("007", "007"),
        ("a b", "a%20b"),
        ("100%", "100%25"),
        ("a%20b", "a%2520b"),
        ("x\ty\nz", "x%09y%0Az"),
        ("\u2028", "%E2%80%A8"),
        ("kleid/größe", "kleid/größe"),
    ],
)
def test_an_id_is_one_column_and_comes_back(identifier: str, column: str) -> None:
    assert escaped(identifier) == column
    assert unescaped(column) == identifier


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_id_is_one_column_and_comes_back(identifier: str) -> None:
    assert escaped(identifier).split() == [escaped(identifier)]
    assert len(escaped(identifier).splitlines()) == 1
    assert unescaped(escaped(identifier)) == identifier


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(PreflightError, match="empty id"):
        escaped("")


@given(st.lists(FP32, max_size=30).map(lambda scores: sorted(scores, reverse=True)))
def test_written_scores_fall_strictly_and_move_by_no_more_than_the_ties(
    scores: list[float],
) -> None:
    lines = run_lines("q", [str(n) for n in range(len(scores))], np.array(scores), "t")
    written = [np.float32(line.split()[4]) for line in lines]
    assert all(after < before for before, after in pairwise(written))
    for score, told in zip(scores, written, strict=True):
        assert told <= np.float32(score)
    if len(set(scores)) == len(scores):
        assert written == [np.float32(score) for score in scores]


def test_ties_part_by_the_smallest_step() -> None:
    one = np.float32(1)
    below = np.nextafter(one, np.float32(0))
    assert parted(np.array([1, 1, 0.5])).tolist() == [one, below, 0.5]
    assert len(parted(np.array([]))) == 0


def test_lines_have_trecs_columns() -> None:
    lines = run_lines("q 1", ["b", "a"], np.array([0.25, 0.25]), "run")
    assert list(lines) == ["q%201 Q0 b 1 0.25 run\n", "q%201 Q0 a 2 0.249999985 run\n"]


def test_qrels_grade_the_target_that_recall_counts() -> None:
    targets = (ImageId("a"), ImageId("b"))
    queries = [
        Query(QueryId("1"), "c", ImageId("r"), "text", targets),
        Query(QueryId("2"), "c", ImageId("r"), "text"),
    ]
    assert list(qrel_lines(queries, "any")) == ["1 0 a 1\n", "1 0 b 1\n"]
    assert list(qrel_lines(queries, "first")) == ["1 0 a 2\n", "1 0 b 1\n"]
