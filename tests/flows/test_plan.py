"""A plan tells what the run then does: counted exactly, and nothing made on the way."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import tasks.calibrate
import tasks.encode
import tasks.rerank
from cir_core.errors import ProblemsFound
from cir_core.forecast import Speeds
from flows.plan import Plan, Planned, make_plan
from storage.artifacts import Artifact
from tests.support.small_benchmarks import FIQ_IMAGES, FIQ_QUERIES, Bench, Finished, K

BEFORE_SCORING = {"ingest", "pair"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.calibrate, "SECONDS", 0.02)


def planned(bench: Bench, store: Path, **changes: Any) -> Plan:
    return make_plan(bench.settings(store, **changes), started=0.5)


def stage_of(plan: Plan, name: str) -> Planned:
    return next(one for one in plan.stages if one.stage == name)


def made(store: Path) -> set[str]:
    return {folder.name for folder in (store / "artifacts").iterdir()}


def test_an_empty_store_is_planned_whole_and_the_run_does_just_that(
    fiq: Bench, fiq_run: Finished, tmp_path: Path
) -> None:
    plan = planned(fiq, tmp_path)
    assert made(tmp_path) == BEFORE_SCORING
    assert [one.stage for one in plan.stages if one.state == "done"] == ["ingest"]
    assert [one.stage for one in plan.stages[1:]] == list(fiq_run.run.made[1:])
    run = Artifact(fiq_run.store, "evaluate", fiq_run.run.evaluated).identity()["inputs"]
    ranked = Artifact(fiq_run.store, "rank", run["rank"])
    scores = Artifact(fiq_run.store, "rerank", ranked.identity()["inputs"]["rerank"]).read("scores")
    rerank = stage_of(plan, "rerank").effort
    assert rerank.pairs == scores.num_rows == 2 * FIQ_QUERIES * K
    assert stage_of(plan, "encode").effort.images == 2 * FIQ_IMAGES
    assert stage_of(plan, "fuse").effort.queries == 2 * FIQ_QUERIES
    assert all(one.effort.seconds > 0 for one in plan.stages)
    assert plan.seconds > plan.start > 0.5
    assert plan.published_flops > 0


def test_after_the_run_there_is_nothing_to_do_and_nothing_is_timed(fiq_run: Finished) -> None:
    plan = planned(fiq_run.bench, fiq_run.store)
    assert {one.state for one in plan.stages} == {"done"}
    assert (plan.total.flops, plan.total.bytes, plan.speeds) == (0, 0, Speeds())
    assert plan.with_cache is None


def test_what_differs_is_told(fiq_run: Finished) -> None:
    plan = planned(fiq_run.bench, fiq_run.store, k=K - 1)
    assert stage_of(plan, "fuse").state == "done"
    told = {one.stage: one.why for one in plan.stages if one.why}
    assert told["retrieve"] == f"k {K - 1}, not {K}"
    assert told["rerank"] == "new retrieve"
    assert told["publish"] == "not in the catalog"
    precise = planned(fiq_run.bench, fiq_run.store, precision="bf16")
    assert stage_of(precise, "rerank").why == "precision bf16, not fp32"


def test_chosen_pairs_are_counted_where_both_pools_hold_one(
    cirr_run: Finished, tmp_path: Path
) -> None:
    """Before stage 1 has chosen, a subset's members count beside the candidates."""
    store = tmp_path / "store"
    shutil.copytree(cirr_run.store, store)
    shutil.rmtree(store / "artifacts" / "rerank")
    plan = planned(cirr_run.bench, store)
    run = Artifact(cirr_run.store, "evaluate", cirr_run.run.evaluated).identity()["inputs"]
    ranked = Artifact(cirr_run.store, "rank", run["rank"])
    scores = Artifact(cirr_run.store, "rerank", ranked.identity()["inputs"]["rerank"]).read(
        "scores"
    )
    rerank = stage_of(plan, "rerank").effort
    assert rerank.pairs == scores.num_rows
    assert rerank.images == len(set(scores["image_id"].to_pylist()))
    expected = stage_of(planned(cirr_run.bench, tmp_path / "new"), "rerank").effort
    assert expected.pairs > rerank.pairs


def test_an_interrupted_stage_is_begun(
    fiq: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.encode, "SHARD", 7)
    monkeypatch.setattr(tasks.rerank, "SHARD", 7)
    fiq.run(tmp_path)
    whole = sorted((tmp_path / "artifacts" / "rerank").glob("*/scores-*.parquet"))
    whole[0].unlink()
    plan = planned(fiq, tmp_path)
    rerank = stage_of(plan, "rerank")
    assert rerank.state == "begun"
    assert rerank.effort.pairs == round(2 * FIQ_QUERIES * K * 7 / (2 * FIQ_IMAGES))
    assert stage_of(plan, "encode").state == "done"


def test_tokens_that_are_kept_are_read(fiq: Bench, tmp_path: Path) -> None:
    plan = planned(fiq, tmp_path, tokens="cache")
    assert [one.stage for one in plan.stages[:3]] == ["ingest", "tokens", "encode"]
    assert made(tmp_path) == BEFORE_SCORING
    assert plan.with_cache is None
    other = planned(fiq, tmp_path).with_cache
    assert other is not None
    assert other.bytes == plan.total.bytes
    fiq.run(tmp_path, tokens="cache")
    plan = planned(fiq, tmp_path, tokens="cache", k=K - 1)
    assert plan.speeds.kept
    assert "tokens" not in [one.stage for one in plan.stages]


def test_a_plan_of_a_broken_copy_stops_as_the_run_would(fiq: Bench, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(fiq.root, root)
    next((root / "images").iterdir()).unlink()
    with pytest.raises(ProblemsFound):
        planned(fiq, tmp_path / "store", data_root=root)
    assert planned(fiq, tmp_path / "store", data_root=root, allow_missing=1).seconds > 0
