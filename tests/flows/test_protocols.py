"""One store, several protocols: what they share is made once, what they change is theirs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from storage.catalog import CATALOG_FILE, query
from tests.support.small_benchmarks import (
    CIRR_QUERIES,
    Bench,
    Finished,
    rounding_of,
    write_circo,
)


@pytest.fixture(scope="module")
def benches(fiq: Bench, cirr: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    folder = tmp_path_factory.mktemp("circo")
    write_circo(folder)
    return {"fiq": fiq, "cirr": cirr, "circo": Bench("circo", folder, fiq.pair)}


def rows(store: Path, sql: str) -> list[dict[str, Any]]:
    columns, found = query(store / CATALOG_FILE, sql)
    return [dict(zip(columns, row, strict=True)) for row in found]


@pytest.fixture
def fiq_store(fiq_run: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fiq_run.store, tmp_path / "s"))


def test_gallery_and_reference_protocols_share_the_encoding_and_the_fused_queries(
    benches: dict[str, Bench], fiq_store: Path
) -> None:
    run = benches["fiq"].run(fiq_store, protocol="fiq-union-removed")
    assert {"ingest", "retrieve", "evaluate"} <= set(run.made)
    assert not {"encode", "fuse"} & set(run.made)
    told = rows(fiq_store, f"SELECT protocol FROM runs WHERE run_id = '{run.run_id}'")
    assert told == [{"protocol": "fiq-union-removed"}]
    own = rows(
        fiq_store,
        f"""SELECT count(*) AS n FROM rankings r JOIN queries q USING (run_id, query_id)
            WHERE run_id = '{run.run_id}' AND r.image_id = q.reference_id""",
    )
    assert own == [{"n": 0}]
    strangers = rows(
        fiq_store,
        f"""SELECT count(*) AS n FROM gallery g WHERE run_id = '{run.run_id}' AND NOT EXISTS (
            SELECT 1 FROM queries q WHERE q.run_id = g.run_id AND q.category = g.category
            AND (q.reference_id = g.image_id OR list_contains(q.targets, g.image_id)))""",
    )
    assert strangers == [{"n": 0}]


def test_a_caption_rule_fuses_anew_and_keeps_the_gallerys_encoding(
    benches: dict[str, Bench], fiq_store: Path
) -> None:
    run = benches["fiq"].run(fiq_store, protocol="fiq-original-kept-reversed")
    assert "fuse" in run.made
    assert "encode" not in run.made


def test_both_orders_average_what_each_order_gives(
    benches: dict[str, Bench], fiq_store: Path
) -> None:
    runs = {
        rule: benches["fiq"].run(fiq_store, protocol=f"fiq-original-kept{rule}", k=14).run_id
        for rule in ("", "-reversed", "-both-orders")
    }
    scores: dict[str, dict[tuple[str, str], float]] = {
        rule: {
            (row["query_id"], row["image_id"]): row["stage2_score"]
            for row in rows(fiq_store, f"SELECT * FROM rankings WHERE run_id = '{run}'")
        }
        for rule, run in runs.items()
    }
    both, atol = scores["-both-orders"], rounding_of(benches["fiq"].pair)
    assert both.keys() == scores[""].keys()  # K is the whole gallery
    for pair, score in both.items():
        assert score == pytest.approx((scores[""][pair] + scores["-reversed"][pair]) / 2, abs=atol)
    told = rows(
        fiq_store, f"SELECT text, other_text FROM queries WHERE run_id = '{runs['-both-orders']}'"
    )
    assert all(row["text"].lower() != row["other_text"].lower() for row in told)


def test_runs_of_several_protocols_live_side_by_side(
    benches: dict[str, Bench], fiq_store: Path
) -> None:
    for protocol in ("fiq-union-kept", "fiq-original-removed"):
        benches["fiq"].run(fiq_store, protocol=protocol)
    names = {row["protocol"] for row in rows(fiq_store, "SELECT protocol FROM runs")}
    assert {"fiq-original-kept", "fiq-union-kept", "fiq-original-removed"} <= names


def test_a_subset_in_main_order_follows_the_ranking_and_stage_1_beyond_it(
    benches: dict[str, Bench], tmp_path: Path
) -> None:
    protocol = "cirr-removed-subset-main-order"
    ended = Finished(benches["cirr"], tmp_path, benches["cirr"].run(tmp_path, protocol=protocol))
    found = rows(
        ended.store, f"SELECT * FROM rankings WHERE run_id = '{ended.run.run_id}' ORDER BY rank"
    )
    by_query: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in found:
        by_query.setdefault(row["query_id"], {}).setdefault(row["pool"], []).append(row)
    assert len(by_query) == CIRR_QUERIES
    differs = 0
    for pools in by_query.values():
        main = [row["image_id"] for row in pools["gallery"]]
        members = {row["image_id"]: row["stage1_rank"] for row in pools["subset"]}
        wanted = [image for image in main if image in members]
        wanted += sorted(members.keys() - set(main), key=members.__getitem__)
        assert [row["image_id"] for row in pools["subset"]] == wanted
        assert [row["rank"] for row in pools["subset"]] == [1, 2, 3, 4, 5]
        by_score = sorted(pools["subset"], key=lambda row: -row["stage2_score"])
        differs += [row["image_id"] for row in by_score] != wanted
    assert differs > 0  # else the two definitions could not be told apart here


def test_circo_counts_all_ground_truths_in_map_and_the_first_in_recall(
    benches: dict[str, Bench], tmp_path: Path
) -> None:
    run = benches["circo"].run(tmp_path)
    where = f"run_id = '{run.run_id}'"
    found = rows(tmp_path, f"SELECT * FROM metrics WHERE {where}")
    metrics = {(row["metric"], row["stage"], row["k"]): row["value"] for row in found}
    view = {
        ("map", row["stage"], row["k"]): row["value"]
        for row in rows(tmp_path, f"SELECT * FROM mean_average_precision WHERE {where}")
    }
    assert len(view) == 8
    assert {key: metrics[key] for key in view} == pytest.approx(view, abs=1e-12)
    asked = rows(tmp_path, f"SELECT * FROM queries WHERE {where}")
    assert {len(row["targets"]) for row in asked} == {2, 3}
    for stage, column in (("stage1", "stage1_rank"), ("stage2", "rank")):
        hits = []
        for row in asked:
            sql = f"""SELECT {column} AS place FROM rankings WHERE {where}
                      AND query_id = '{row["query_id"]}' AND image_id = '{row["targets"][0]}'"""
            place = [one["place"] for one in rows(tmp_path, sql)]
            hits.append(bool(place) and place[0] <= 5)
        assert metrics["recall", stage, 5] == pytest.approx(sum(hits) / len(hits))
    recall = rows(tmp_path, f"SELECT stage1, stage2 FROM recall WHERE {where} AND k = 5")
    assert recall[0]["stage1"] == pytest.approx(metrics["recall", "stage1", 5])
    assert "mAP@5" in run.report.read_text()
