"""Equal scores: whom they tie, and what hangs on it."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from storage.answers import reading
from storage.catalog import PublishedRun, query, write_catalog
from tasks.results.analyses.analysis import Analysis
from tasks.results.analyses.ties import ties
from tests.support.made_catalogs import asked, published, ranked, two_categories


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cir.duckdb"


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    return query(path, sql)[1]


def scored(name: str, scores1: str, scores2: str) -> list[dict[str, Any]]:
    """A query's candidates a, b, c, d, best first by stage 1; a digit for each is its score."""
    images = "abcd"[: len(scores1)]
    order = sorted(range(len(images)), key=lambda place: (-int(scores2[place]), place))
    made = ranked(name, "gallery", images, "".join(images[place] for place in order))
    for row, score1, score2 in zip(made, scores1, scores2, strict=True):
        row |= {"stage1_score": float(score1), "stage2_score": float(score2)}
    return made


def test_no_score_twice_is_no_tie(path: Path) -> None:
    write_catalog(path, [two_categories()])
    assert rows(path, "FROM tied_scores") == []
    sql = "SELECT stage, neighbours, tied, queries, mrr = mrr_least, mrr = mrr_most FROM ties"
    assert rows(path, f"{sql} ORDER BY stage") == [
        ("stage1", 10, 0, 0, True, True),
        ("stage2", 10, 0, 0, True, True),
    ]


def test_ties_are_told_with_their_images_and_what_the_mrr_hangs_on_them(path: Path) -> None:
    """q1: stage 2 ties its target b with c, on places 1 and 2. q2: stage 1 ties all four."""
    queries = [asked("q1", "dress", "b", 2), asked("q2", "dress", "d", 4)]
    write_catalog(
        path,
        [published("run", queries, scored("q1", "9876", "1551") + scored("q2", "5555", "4321"))],
    )
    sql = "SELECT query_id, stage, score, first_rank, last_rank, images, pictures, targets"
    assert rows(path, f"{sql} FROM tied_scores ORDER BY ALL") == [
        ("q1", "stage2", 1, 3, 4, ["a", "d"], 2, 0),
        ("q1", "stage2", 5, 1, 2, ["b", "c"], 2, 1),
        ("q2", "stage1", 5, 1, 4, ["a", "b", "c", "d"], 4, 1),
    ]
    sql = "SELECT stage, neighbours, tied, copies, queries, with_target, mrr, mrr_least, mrr_most"
    assert rows(path, f"{sql} FROM ties ORDER BY stage") == [
        ("stage1", 6, 3, 0, 1, 1, (1 / 2 + 1 / 4) / 2, (1 / 2 + 1 / 4) / 2, (1 / 2 + 1) / 2),
        ("stage2", 6, 2, 0, 1, 1, (1 + 1 / 4) / 2, (1 / 2 + 1 / 4) / 2, (1 + 1 / 4) / 2),
    ]


def test_targets_that_tie_with_each_other_alone_hang_on_nothing(path: Path) -> None:
    both = asked("q", "dress", "b", 2) | {"targets": ["b", "c"], "recall_targets": ["b", "c"]}
    write_catalog(path, [published("run", [both], scored("q", "9876", "1551"))])
    sql = "SELECT with_target, mrr, mrr_least, mrr_most FROM ties WHERE stage = 'stage2'"
    assert rows(path, sql) == [(0, 1, 1, 1)]


def test_copies_of_a_picture_are_counted_apart(path: Path) -> None:
    run = published("run", [asked("q", "dress", "c", 3)], scored("q", "977", "155"))
    members = run.tables["gallery_members"]
    twins = members.set_column(members.column_names.index("sha256"), "sha256", [["a", "b", "b"]])
    galleries = run.tables["galleries"].to_pylist()
    sha256 = "SELECT sha256('a a' || chr(10) || 'b b' || chr(10) || 'b c' || chr(10))"
    with duckdb.connect() as connection:
        ((galleries[0]["sha256"],),) = connection.execute(sha256).fetchall()
    changed = {
        "gallery_members": twins,
        "galleries": run.tables["galleries"].from_pylist(galleries, run.tables["galleries"].schema),
    }
    write_catalog(path, [PublishedRun(run.row, {**run.tables, **changed})])
    sql = "SELECT stage, tied, copies, with_target FROM ties ORDER BY stage"
    assert rows(path, sql) == [("stage1", 1, 1, 1), ("stage2", 1, 1, 1)]


def test_a_late_fusions_ties_are_those_of_what_it_ranks_by(path: Path) -> None:
    run = published("run", [asked("q", "dress", "b", 2)], scored("q", "98", "55"))
    row = {**run.row, "late_fusion": 1.0, "late_fusion_scores": "raw"}
    write_catalog(path, [PublishedRun(row, run.tables)])
    assert rows(path, "SELECT tied FROM ties WHERE stage = 'stage2'") == [(0,)]


def test_a_run_of_stage_1_alone_and_one_without_labels(path: Path) -> None:
    run = published("run", [asked("q", "dress", None, None)], scored("q", "98", "55"))
    alone = {**run.tables, "rankings": run.tables["rankings"].slice(0, 0)}
    write_catalog(path, [PublishedRun({**run.row, "stage2_sha256": None}, alone)])
    sql = "SELECT stage, tied, mrr, mrr_least FROM ties"
    assert rows(path, sql) == [("stage1", 0, None, None)]


def test_constant_scores_are_told_and_stop_nothing(path: Path) -> None:
    run = published("run", [asked("q", "dress", "a", 1)], scored("q", "5555", "5555"))
    write_catalog(path, [run])
    sql = "SELECT tied = neighbours, mrr_least, mrr_most FROM ties"
    assert rows(path, sql) == [(True, 1 / 4, 1)] * 2


def analysed(path: Path) -> Analysis:
    with reading(path) as catalog:
        return ties(catalog, catalog.rows("FROM runs")[0])


def test_the_analysis_tells_what_hangs_on_ties(path: Path) -> None:
    queries = [asked("q1", "dress", "b", 2), asked("q2", "dress", "d", 4)]
    write_catalog(
        path,
        [published("run", queries, scored("q1", "9876", "1551") + scored("q2", "9876", "4321"))],
    )
    found = analysed(path)
    assert "In stage 1, none of 6 pairs of neighbours has equal scores." in found.answer
    assert "In stage 2, 2 of 6 pairs of neighbours have equal scores, in 1 query" in found.answer
    assert "is 0.6250, but would be from 0.3750 to 0.6250 in another order." in found.answer
    assert "more often than by chance" in found.advice
    with reading(path) as catalog:
        for numbers in found.numbers:
            again = catalog.rows(numbers.sql)
            assert [row["tied"] for row in again] == [row["tied"] for row in numbers.rows]


def test_the_analysis_of_scores_that_bf16_would_tie(path: Path) -> None:
    """Of 1, 1 + 1/256, 1 + 1/128 the middle one is even at 1: so are the others of its kind."""
    rankings = ranked("q", "gallery", "abc", "abc")
    for row, score in zip(rankings, (1 + 1 / 128, 1 + 1 / 256, 1.0), strict=True):
        row["stage2_score"] = score
    write_catalog(path, [published("run", [asked("q", "dress", None, None)], rankings)])
    found = analysed(path)
    assert [row["tied"] for row in found.numbers[0].rows] == [0, 0]
    assert [row["tied"] for row in found.numbers[1].rows] == [0, 1]
    assert found.advice == ""


def test_the_analysis_of_constant_scores_and_of_nothing(path: Path) -> None:
    write_catalog(
        path, [published("run", [asked("q", "dress", "a", 1)], scored("q", "5555", "5555"))]
    )
    assert "In stage 2 every score is the same" in analysed(path).answer
    write_catalog(path, [published("run", [asked("q", "dress", "a", 1)], [])])
    assert analysed(path).missing == "No query has two candidates."
