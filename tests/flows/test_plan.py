"""A plan tells what the run then does, count by count, and makes nothing on the way."""

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cir_core.errors import ProblemsFound
from cir_core.planning.effort import Speeds
from flows.engines.engine import InProcess
from flows.plan import Plan, Planned, make_plan
from flows.run import Run, run_pipeline
from flows.settings import Settings
from storage.artifacts import Artifact
from storage.store import LocalStore
from tests.support.small_benchmarks import FIQ_IMAGES, FIQ_QUERIES, Bench, Finished, K

BEFORE_SCORING = {"ingest", "pair"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)


def planned(settings: Settings) -> Plan:
    return make_plan(settings, started=0.5)


def changed(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


def stage_of(plan: Plan, name: str) -> Planned:
    return next(one for one in plan.stages if one.stage == name)


def made(store: Path) -> set[str]:
    return {folder.name for folder in (store / "artifacts").iterdir()}


def artifacts_of(run: Run) -> dict[str, Artifact]:
    """What a run is made of, by stage."""
    candidates = run.evaluated.candidates
    every = (candidates, candidates.encoded, candidates.fused, run.evaluated.ingested)
    return {one.stage: one for one in (*every, run.evaluated.ranked.scored)}


def counts_of(plan: Plan) -> dict[str, tuple[int, int, int]]:
    """Images, queries and pairs of each stage."""
    return {
        one.stage: (one.effort.images, one.effort.queries, one.effort.pairs) for one in plan.stages
    }


def counts_in(run: Run) -> dict[str, tuple[int, int, int]]:
    """The same, of what the run left; a query that is asked both ways is scored twice."""
    there = artifacts_of(run)
    texts = Counter(there["fuse"].read("queries")["query_id"].to_pylist())
    scores = there["rerank"].read("scores")
    candidates = there["retrieve"].read("candidates").num_rows
    queries, images = len(texts), there["ingest"].read("images").num_rows
    scored = sum(texts[query] for query in scores["query_id"].to_pylist())
    return {
        "ingest": (images, queries, 0),
        "encode": (images, 0, 0),
        "fuse": (0, queries, 0),
        "retrieve": (0, queries, candidates),
        "rerank": (len(set(scores["image_id"].to_pylist())), queries, scored),
        **dict.fromkeys(("rank", "evaluate", "publish", "report"), (0, 0, candidates)),
    }


# --- counts

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fiq": ("fiq", {"k": 14}),
    "fewer images than k": ("fiq", {"k": 50}),
    "reference removed": ("fiq", {"k": 50, "protocol": "fiq-original-removed"}),
    "both orders": ("fiq", {"k": 50, "protocol": "fiq-original-kept-both-orders"}),
    "one shared gallery": ("fiq", {"k": 50, "protocol": "fiq-union-kept"}),
    "subsets": ("cirr", {"k": 50}),
    "subsets by the main order": ("cirr", {"k": 50, "protocol": "cirr-removed-subset-main-order"}),
}
"""With candidates enough for every image to be one, so that none is a matter of chance."""


@pytest.mark.parametrize("case", CASES)
def test_the_run_does_what_was_planned(
    case: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name, changes = CASES[case]
    bench: Bench = request.getfixturevalue(name)
    settings = bench.settings(tmp_path, **changes)
    plan = planned(settings)
    assert made(tmp_path) == BEFORE_SCORING
    run = run_pipeline(settings, InProcess())
    assert [one.stage for one in plan.stages if one.state == "done"] == ["ingest"]
    assert [one.stage for one in plan.stages[1:]] == [one for one in run.made if one != "ingest"]
    assert counts_of(plan) == counts_in(run)
    assert all(one.effort.seconds > 0 for one in plan.stages)
    assert plan.seconds > plan.start > 0.5
    shutil.rmtree(tmp_path / "artifacts" / "rerank")
    chosen = stage_of(planned(settings), "rerank").effort
    assert (chosen.images, chosen.queries, chosen.pairs) == counts_of(plan)["rerank"]


def test_what_stage_1_has_chosen_is_counted_exactly(cirr: Bench, tmp_path: Path) -> None:
    """Before, a subset's member is a candidate by chance."""
    settings = cirr.settings(tmp_path, k=3)
    expected = stage_of(planned(settings), "rerank").effort
    run = run_pipeline(settings, InProcess())
    counted = counts_in(run)["rerank"]
    assert expected.pairs == pytest.approx(counted[2], rel=0.15)
    shutil.rmtree(tmp_path / "artifacts" / "rerank")
    chosen = stage_of(planned(settings), "rerank").effort
    assert (chosen.images, chosen.queries, chosen.pairs) == counted


def test_missing_and_undecodable_images_are_not_counted(fiq: Bench, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(fiq.root, root)
    missing, torn = sorted((root / "images").iterdir())[:2]
    missing.unlink()
    torn.write_bytes(torn.read_bytes()[:-40])
    settings = fiq.settings(tmp_path / "store", data_root=root, k=50)
    with pytest.raises(ProblemsFound):
        planned(settings)
    with pytest.raises(ProblemsFound):  # the other one is found when it is decoded
        run_pipeline(changed(settings, allow_missing=1), InProcess())
    with pytest.raises(ProblemsFound):
        planned(changed(settings, allow_missing=1))
    allowed = changed(settings, allow_missing=2)
    left = counts_of(planned(allowed))
    counted = counts_in(run_pipeline(allowed, InProcess()))
    assert left["encode"] == left["fuse"] == (0, 0, 0)
    assert {stage: left[stage] for stage in ("retrieve", "rerank", "rank")} == {
        stage: counted[stage] for stage in ("retrieve", "rerank", "rank")
    }


@pytest.mark.parametrize("categories", [1, 3])
def test_own_data_without_labels(fiq: Bench, tmp_path: Path, categories: int) -> None:
    """Categories of queries share the gallery; two references are not in it."""
    folder = tmp_path / "catalogue"
    shutil.copytree(fiq.root / "images", folder)
    names = sorted(path.name for path in folder.iterdir())
    with (folder / "queries.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["reference", "text", "category"])
        table.writerows([name, "is red", f"c{i % categories}"] for i, name in enumerate(names[:6]))
    (folder / "gallery.csv").write_text("image\n" + "\n".join(names[2:9]) + "\n")
    changes = {"dataset": "own", "data_root": folder, "gallery": "gallery.csv", "k": 50}
    settings = fiq.settings(tmp_path / "store", categories=(), **changes)
    plan = planned(settings)
    run = run_pipeline(settings, InProcess())
    there = counts_in(run)
    assert counts_of(plan) == there | {"ranked": (0, 0, there["rank"][2])}
    assert stage_of(plan, "ranked").effort.bytes > 0


# --- states


def test_after_the_run_there_is_nothing_to_do_and_nothing_is_timed(fiq_run: Finished) -> None:
    plan = planned(fiq_run.bench.settings(fiq_run.store))
    assert {one.state for one in plan.stages} == {"done"}
    assert (plan.total.flops, plan.total.bytes, plan.speeds) == (0, 0, Speeds())
    assert plan.published_flops == 0
    assert plan.with_cache is None


def test_what_differs_is_told(fiq_run: Finished) -> None:
    plan = planned(fiq_run.bench.settings(fiq_run.store, k=K - 1))
    assert stage_of(plan, "fuse").state == "done"
    told = {one.stage: one.why for one in plan.stages if one.why}
    assert told["retrieve"] == f"k {K - 1}, not {K}"
    assert told["rerank"] == "another retrieve"
    assert told["publish"] == "not in a sound catalog"
    precise = planned(fiq_run.bench.settings(fiq_run.store, stage2_precision="bf16"))
    assert stage_of(precise, "rerank").why == "precision bf16, not fp32"
    found = planned(fiq_run.bench.settings(fiq_run.store, index="flat"))
    assert stage_of(found, "retrieve").why == "index flat, not exact"


SHARD = 7


@pytest.fixture(scope="module")
def in_shards(fiq: Bench, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Those of a finished run in four shards. Read only."""
    settings = fiq.settings(tmp_path_factory.mktemp("shards") / "store", tokens="cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.shards.PICTURES", SHARD)
        run_pipeline(settings, InProcess())
    return settings


@pytest.fixture
def sharded(in_shards: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same, with a store to be changed."""
    monkeypatch.setattr("tasks.shards.PICTURES", SHARD)
    shutil.copytree(in_shards.store, tmp_path, dirs_exist_ok=True)
    return changed(in_shards, store=tmp_path)


def lose(store: Path, pattern: str) -> None:
    """The first part that matches."""
    sorted((store / "artifacts").glob(pattern))[0].unlink()


def test_what_is_left_of_a_stage_is_counted(sharded: Settings, tmp_path: Path) -> None:
    (folder,) = (tmp_path / "artifacts" / "rerank").iterdir()
    scores = (
        Artifact(LocalStore(tmp_path), "rerank", folder.name).read("scores")["image_id"].to_pylist()
    )
    lose(tmp_path, "rerank/*/scores-*.parquet")
    rerank = stage_of(planned(sharded), "rerank")
    assert (rerank.state, rerank.why) == ("begun", f"{3 * SHARD} of {4 * SHARD} images are done")
    first = _images_of(tmp_path, range(SHARD))
    assert rerank.effort.pairs == sum(image in first for image in scores)
    assert rerank.effort.images == len(first & set(scores))


def _images_of(store: Path, rows: range) -> set[str]:
    (folder,) = (store / "artifacts" / "ingest").iterdir()
    ids = Artifact(LocalStore(store), "ingest", folder.name).read("images")["image_id"].to_pylist()
    return set(ids[rows.start : rows.stop])


def test_the_pass_sees_what_either_stage_lacks(sharded: Settings, tmp_path: Path) -> None:
    lose(tmp_path, "encode/*/embeddings-0000000*.parquet")
    lose(tmp_path, "fuse/*/queries-0000007*.parquet")
    plan = planned(sharded)
    assert [one.state for one in plan.stages if one.stage in ("encode", "fuse")] == ["begun"] * 2
    assert stage_of(plan, "encode").effort.images == 2 * SHARD
    assert stage_of(plan, "rerank").state == "done"


def test_kept_tokens_are_told_and_what_is_lost_of_them(sharded: Settings, tmp_path: Path) -> None:
    plan = planned(changed(sharded, k=K - 1))
    assert stage_of(plan, "tokens").state == "done"
    assert plan.with_cache is None
    lose(tmp_path, "tokens/*/tokens-*.npy")
    plan = planned(changed(sharded, k=K - 1))
    assert stage_of(plan, "tokens").state == "begun"
    assert stage_of(plan, "tokens").effort.images == SHARD
    without = planned(changed(sharded, k=K - 1, tokens="auto"))
    assert "tokens" not in [one.stage for one in without.stages]
    assert without.with_cache is not None
    assert without.with_cache.bytes == plan.total.bytes


def test_a_damaged_manifest_is_not_whole(fiq: Bench, fiq_run: Finished, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(fiq_run.store, store)
    next((store / "artifacts" / "retrieve").glob("*/manifest.json")).write_text("{")
    plan = planned(fiq.settings(store))
    assert stage_of(plan, "retrieve").why == "what is there is not whole"
    assert stage_of(plan, "rerank").state == "done"


def test_counts_are_those_of_the_benchmark(fiq: Bench, tmp_path: Path) -> None:
    plan = planned(fiq.settings(tmp_path))
    assert counts_of(plan)["rerank"][2] == 2 * FIQ_QUERIES * K
    assert counts_of(plan)["encode"][0] == 2 * FIQ_IMAGES
    assert plan.published_flops > stage_of(plan, "rerank").effort.flops / 2
