"""What the page knows of queries: all of them, or as many as fit, and which are left out."""

import hashlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from storage.answers import reading
from storage.catalog import CATALOG_FILE
from tasks.results.report.query_rows import MOST_BYTES, query_rows
from tasks.results.report.source import Source
from tests.browser.conftest import Opening
from tests.browser.made_report import HOSTILE, K, MadeReport


@pytest.fixture
def source(mixed: MadeReport) -> Iterator[Source]:
    with reading(mixed.store / CATALOG_FILE) as catalog:
        (run,) = catalog.rows(f"SELECT * FROM runs WHERE run_id = '{mixed.run_id}'")
        yield Source(mixed.report.evaluated, run, catalog, mixed.report.root)


def test_every_query_is_known_in_the_datasets_order(source: Source) -> None:
    known = query_rows(source, [], most=MOST_BYTES)
    asked = source.evaluated.ingested.read("queries")["query_id"].to_pylist()
    assert [row["query_id"] for row in known.rows] == asked
    assert (known.count, known.left_out_sql) == (len(asked), "")


def test_a_querys_first_candidates_are_those_of_the_rankings(source: Source) -> None:
    rankings = source.evaluated.ranked.read("rankings").to_pylist()
    for row in query_rows(source, [], most=MOST_BYTES).rows:
        mine = [
            one
            for one in rankings
            if (one["query_id"], one["pool"]) == (row["query_id"], "gallery")
        ]
        if row["query_id"] == HOSTILE[0]:
            assert (mine, row["stage1_images"], row["stage2_images"]) == ([], None, None)
            continue
        assert len(mine) == K
        for stage, rank, other in (
            ("stage1", "stage1_rank", "rank"),
            ("stage2", "rank", "stage1_rank"),
        ):
            top = sorted(mine, key=lambda one: one[rank])[:10]
            assert row[f"{stage}_images"] == [one["image_id"] for one in top]
            assert row[f"{stage}_others"] == [one[other] for one in top]
            scores = [one[f"{stage}_score"] for one in top]
            assert row[f"{stage}_scores"] == pytest.approx(scores, abs=5e-5)


def test_a_querys_targets_stand_where_both_stages_put_them(source: Source) -> None:
    ranked = {
        (one["query_id"], one["image_id"]): one["rank"]
        for one in source.evaluated.ranked.read("rankings").to_pylist()
    }
    first = {
        (one["query_id"], one["image_id"]): one["stage1_rank"]
        for one in source.evaluated.candidates.read("targets").to_pylist()
    }
    several = 0
    for row in query_rows(source, [], most=MOST_BYTES).rows:
        pairs = [(row["query_id"], target) for target in row["targets"] or ()]
        assert (row["targets_stage1"] or []) == [first.get(pair) for pair in pairs]
        assert (row["targets_stage2"] or []) == [ranked.get(pair) for pair in pairs]
        several += len(pairs) > 1
    assert several


def test_as_many_queries_as_fit_and_the_others_by_sql(source: Source) -> None:
    everything = query_rows(source, [], most=MOST_BYTES)
    some = query_rows(source, ["dress-q05", HOSTILE[1]], most=6_000)
    ids = [row["query_id"] for row in some.rows]
    assert 2 < len(ids) < 20
    assert {"dress-q05", HOSTILE[1]} < {*ids}
    left_out = [row["query_id"] for row in source.rows(some.left_out_sql)]
    assert sorted(left_out + ids) == sorted(row["query_id"] for row in everything.rows)
    drawn = {hashlib.md5(one.encode()).hexdigest() for one in {*ids} - {"dress-q05", HOSTILE[1]}}
    assert max(drawn) < min(hashlib.md5(one.encode()).hexdigest() for one in left_out)
    assert some.count == everything.count


def test_a_page_says_how_many_queries_it_lacks(
    opened: Opening, mixed: MadeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.results.report.queries.MOST_BYTES", 10_000)
    before = mixed.page.read_bytes()
    try:
        mixed.report.write()
        page = opened(mixed.page, at="#q=nobody")
        told = page.locator("#queries").inner_text()
        expect(page.get_by_role("status")).to_contain_text("it is left out, or there is none")
    finally:
        mixed.page.write_bytes(before)
    assert "of the run's 48 queries are here" in told
