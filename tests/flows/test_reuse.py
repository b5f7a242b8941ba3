"""What earlier runs of a store have computed is not computed again, whatever K, protocol, gallery
or list of images asks for it; and a run's numbers are those of a store of its own."""

import logging
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cir_core.checkpoints.published import convert_published
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.retrievers.blip.fusion import Stage1Model
from flows.engines.engine import InProcess
from flows.plan import make_plan
from flows.run import Run, run_pipeline
from flows.settings import Settings
from storage.models.folders import write_checkpoint
from storage.sources.images import read_image
from storage.tables import vectors_of
from tasks.stages.costs import cost_table
from tasks.stages.rerank import Rerank
from tests.support.small_benchmarks import CIRR_QUERIES, Bench, Finished, K, rounding_of
from tests.support.tiny_checkpoints import tiny_stage2


class Work:
    """What was done since it was last asked."""

    def __init__(self) -> None:
        self.counts = Counter[str]()

    def take(self) -> dict[str, int]:
        counts, self.counts = self.counts, Counter()
        return dict(counts)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Pairs that the engine scores, texts that stage 1 fuses, pictures that are decoded."""
    work = Work()
    score, fuse, read = RerankEngine.score, Stage1Model.fuse, read_image

    def scoring(engine: RerankEngine, tokens: Any, query: Any, image: Any) -> np.ndarray:
        work.counts["pairs"] += len(query)
        return score(engine, tokens, query, image)

    def fusing(model: Stage1Model, ids: Any, lengths: Any, tokens: Any) -> Any:
        work.counts["texts"] += len(ids)
        return fuse(model, ids, lengths, tokens)

    def reading(*of: Any, **named: Any) -> Any:
        work.counts["pictures"] += 1
        return read(*of, **named)

    monkeypatch.setattr(RerankEngine, "score", scoring)
    monkeypatch.setattr(Stage1Model, "fuse", fusing)
    monkeypatch.setattr("tasks.feed.decode.read_image", reading)
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)
    return work


def go(settings: Settings) -> Run:
    return run_pipeline(settings, InProcess())


def planned(settings: Settings, work: Work) -> dict[str, tuple[int, int, int]]:
    """Images, queries and pairs of each stage; what was timed for it is no work of a run."""
    plan = make_plan(settings, started=0.0)
    work.take()
    return {
        one.stage: (one.effort.images, one.effort.queries, one.effort.pairs) for one in plan.stages
    }


def scores_of(run: Run) -> dict[tuple[str, str], float]:
    table = run.artifacts["rerank"].read("scores").to_pydict()
    pairs = zip(table["query_id"], table["image_id"], strict=True)
    return dict(zip(pairs, table["stage2_score"], strict=True))


def assert_same(found: Run, wanted: Run, bench: Bench) -> None:
    mine, theirs = scores_of(found), scores_of(wanted)
    assert mine.keys() == theirs.keys()
    pairs = list(theirs)
    np.testing.assert_allclose(
        [mine[one] for one in pairs], [theirs[one] for one in pairs],
        rtol=0, atol=rounding_of(bench.pair),
    )  # fmt: skip


# --- scores


def test_another_k_scores_what_is_new_and_plans_it(
    cirr: Bench, cirr_run: Finished, tmp_path: Path, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    few, many = (cirr.settings(tmp_path, k=k, until="evaluate") for k in (2, K))
    before = scores_of(go(few))
    new = scores_of(cirr_run.run).keys() - before.keys()
    assert work.take()["pairs"] == len(before)
    expected = planned(many, work)["rerank"][2]
    go(many.model_copy(update={"until": "retrieve"}))
    assert planned(many, work)["rerank"][2] == len(new)
    assert expected == pytest.approx(len(new), rel=0.4), "a subset's member is one by chance"
    with caplog.at_level(logging.INFO, logger="tasks"):
        run = go(many)
    assert work.take()["pairs"] == len(new)
    known = len(scores_of(run)) - len(new)
    assert f"{known:,} of {known + len(new):,} scores are known from earlier runs" in caplog.text
    assert_same(run, cirr_run.run, cirr)
    costs = {row["stage"]: row for row in cost_table(run.evaluated).to_pylist()}
    assert costs["rerank"]["pairs"] == len(new)
    assert scores_of(run).items() >= before.items(), "copied, not computed"
    between = many.model_copy(update={"k": 3})
    assert planned(between, work)["rerank"] == (0, CIRR_QUERIES, 0)
    go(between)
    assert work.take() == {}


def test_another_protocol_or_category_scores_none_that_it_has(
    fiq: Bench, tmp_path: Path, work: Work
) -> None:
    first = go(fiq.settings(tmp_path, until="rerank"))
    work.take()
    run = go(fiq.settings(tmp_path, until="rerank", protocol="fiq-union-kept"))
    new = scores_of(run).keys() - scores_of(first).keys()
    assert 0 < len(new) < len(scores_of(run))
    assert work.take()["pairs"] == len(new)
    one = fiq.settings(tmp_path, until="rerank", categories=fiq.categories[:1])
    assert planned(one, work)["rerank"][2] == 0
    go(one)
    assert work.take() == {}, "the images are others: all embeddings, z_t and scores are there"


def other_weights(bench: Bench, folder: Path) -> dict[str, Any]:
    state = tiny_stage2()
    name = next(name for name in state if "cls_head" in name and name.endswith("weight"))
    converted = convert_published(state | {name: state[name] * 1.5}, "stage2")
    write_checkpoint(folder, converted.config.model_dump(), converted.tensors)
    return {"stage2": folder}


@pytest.mark.parametrize("other", ["precision", "version", "weights"])
def test_nothing_is_taken_over_from_another_computation(
    other: str, cirr_run: Finished, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, store = cirr_run.bench, tmp_path / "store"
    shutil.copytree(cirr_run.store, store)
    changes: dict[str, Any] = {"k": 2, "until": "rerank"}
    if other == "precision":
        changes["precision"] = "bf16"
    elif other == "version":
        monkeypatch.setattr(Rerank, "version", Rerank.version + 1)
    else:
        changes |= other_weights(bench, tmp_path / "stage2")
    settings = bench.settings(store, **changes)
    go(settings.model_copy(update={"until": "retrieve"}))
    pairs = planned(settings, work)["rerank"][2]
    go(settings)
    assert work.take()["pairs"] == pairs > 0


def test_a_damaged_artifact_is_passed_over_and_a_deleted_one_not_missed(
    cirr_run: Finished, tmp_path: Path, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    bench, store = cirr_run.bench, tmp_path / "store"
    shutil.copytree(cirr_run.store, store)
    (part,) = (store / "artifacts" / "rerank").glob("*/scores-*.parquet")
    good = part.read_bytes()
    part.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with caplog.at_level(logging.WARNING):
        run = go(bench.settings(store, k=3, until="rerank"))
    assert "nothing is taken over from" in caplog.text
    pairs = scores_of(run)
    assert work.take()["pairs"] == len(pairs)
    shutil.rmtree(part.parent)
    assert "rerank" not in go(bench.settings(store, k=3, until="rerank")).made
    go(bench.settings(store, k=2, until="rerank"))
    assert work.take() == {}


# --- pictures and texts


def test_one_changed_photo_is_one_picture_to_see(
    fiq: Bench, fiq_run: Finished, tmp_path: Path, work: Work
) -> None:
    root, store = tmp_path / "data", tmp_path / "store"
    shutil.copytree(fiq.root, root)
    bench = replace(fiq, root=root)
    go(bench.settings(store, tokens="cache", until="retrieve"))
    work.take()
    photo = sorted((root / "images").glob("*.png"))[3]
    Image.open(photo).rotate(180).save(photo)
    settings = bench.settings(store, tokens="cache", until="retrieve")
    told = planned(settings, work)
    assert told["tokens"][0] == 1
    assert told["encode"][0] <= 1
    run = go(settings)
    done = work.take()
    queries = run.artifacts["ingest"].read("queries").to_pylist()
    asked = [one for one in queries if one["reference_id"] == photo.stem]
    assert asked, "a photo that is asked about"
    assert told["fuse"][1] == len(asked)
    assert done == {"pictures": 1, "texts": len(asked)}
    fresh = go(bench.settings(tmp_path / "fresh", until="retrieve"))
    for stage, kind, key in (("encode", "embeddings", "image_id"), ("fuse", "queries", "query_id")):
        mine, theirs = (numbers(one.artifacts[stage].read(kind), key) for one in (run, fresh))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=rounding_of(fiq.pair))


def numbers(table: pa.Table, key: str) -> np.ndarray:
    return vectors_of(table.sort_by(key)["embedding"])
