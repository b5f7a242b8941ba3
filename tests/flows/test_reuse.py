"""What earlier runs of a store have computed is not computed again, whatever K, protocol, gallery
or list of images asks for it; and a run's numbers are those of a store of its own."""

import json
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

from cir_core.planning.effort import Speeds
from cir_core.rerankers.dual.engine import Launched, RerankEngine
from cir_core.retrievers.blip.fusion import Stage1Model
from flows.engines.engine import InProcess
from flows.plan import make_plan
from flows.run import Run, run_pipeline
from flows.settings import Settings
from storage.catalog import query
from storage.models.folders import read_checkpoint, write_checkpoint
from storage.sources.images import read_image
from storage.tables import vectors_of
from tasks.feed.pictures import distinct_pictures
from tasks.stages.costs import cost_table
from tasks.stages.publish import Publish
from tests.support.small_benchmarks import (
    CIRR_IMAGES,
    CIRR_QUERIES,
    Bench,
    Finished,
    rounding_of,
)


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
    launch, fuse, read = RerankEngine.launch, Stage1Model.fuse, read_image

    def scoring(engine: RerankEngine, tokens: Any, query: Any, image: Any) -> Launched:
        work.counts["pairs"] += len(query)
        return launch(engine, tokens, query, image)

    def fusing(model: Stage1Model, ids: Any, lengths: Any, tokens: Any) -> Any:
        work.counts["texts"] += len(ids)
        return fuse(model, ids, lengths, tokens)

    def reading(*of: Any, **named: Any) -> Any:
        work.counts["pictures"] += 1
        return read(*of, **named)

    monkeypatch.setattr(RerankEngine, "launch", scoring)
    monkeypatch.setattr(Stage1Model, "fuse", fusing)
    monkeypatch.setattr("tasks.feed.decode.read_image", reading)
    monkeypatch.setattr("flows.plan.calibrate", lambda *_, **__: Speeds())  # counts need no times
    return work


def go(settings: Settings) -> Run:
    return run_pipeline(settings, InProcess())


def planned(settings: Settings, work: Work) -> dict[str, tuple[int, int, int]]:
    """Images, queries and pairs of each stage. To count them is no work."""
    before = work.counts.copy()
    plan = make_plan(settings, started=0.0)
    assert work.counts == before
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
    cirr_run: Finished, tmp_path: Path, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    bench, artifacts = cirr_run.bench, tmp_path / "artifacts"
    made = cirr_run.store / "artifacts"
    shutil.copytree(
        made, artifacts, ignore=shutil.ignore_patterns("retrieve", "re*rank", "rank", "evaluate")
    )
    many = bench.settings(tmp_path, until="evaluate")
    few = many.model_copy(update={"k": 2, "until": "rerank"})
    before = scores_of(go(few))
    new = scores_of(cirr_run.run).keys() - before.keys()
    assert work.take()["pairs"] == len(before)
    expected = planned(many, work)["rerank"][2]
    shutil.copytree(made / "retrieve", artifacts / "retrieve", dirs_exist_ok=True)
    assert planned(many, work)["rerank"][2] == len(new)
    assert expected == pytest.approx(len(new), rel=0.4), "a subset's member is one by chance"
    with caplog.at_level(logging.INFO, logger="tasks"):
        run = go(many)
    assert work.take()["pairs"] == len(new)
    known = len(scores_of(run)) - len(new)
    assert f"{known:,} of {known + len(new):,} scores are known from earlier runs" in caplog.text
    assert_same(run, cirr_run.run, bench)
    costs = {row["stage"]: row for row in cost_table(run.evaluated).to_pylist()}
    assert (costs["rerank"]["pairs"], costs["rerank"]["copied"]) == (len(new), known)
    Publish(run.evaluated).write()
    gains = query(tmp_path / "cir.duckdb", "SELECT DISTINCT run_id FROM gain_per_petaflop")[1]
    assert gains == [], "what its pairs cost is not known from it alone"
    assert scores_of(run).items() >= before.items(), "copied, not computed"


def test_another_protocol_or_category_scores_none_that_it_has(
    fiq_run: Finished, tmp_path: Path, work: Work
) -> None:
    bench, store = fiq_run.bench, tmp_path / "store"
    shutil.copytree(fiq_run.store, store)
    run = go(bench.settings(store, until="rerank", protocol="fiq-union-kept"))
    new = scores_of(run).keys() - scores_of(fiq_run.run).keys()
    assert 0 < len(new) < len(scores_of(run))
    assert work.take()["pairs"] == len(new)
    one = bench.settings(store, until="rerank", categories=bench.categories[:1])
    assert planned(one, work)["rerank"][2] == 0
    go(one)
    assert work.take() == {}, "the images are others: all embeddings, z_t and scores are there"


def test_another_model_or_way_to_z_t_takes_nothing_over(
    cirr_run: Finished, tmp_path: Path, work: Work
) -> None:
    """With candidates enough for every image to be one, so that a plan needs no stage 1."""
    bench, store = cirr_run.bench, tmp_path / "store"
    shutil.copytree(cirr_run.store, store)
    other = read_checkpoint(bench.pair.stage2)
    head = "score_head.output.weight"
    tensors = other.tensors | {head: other.tensors[head] * 1.5}
    write_checkpoint(tmp_path / "stage2", other.config, tensors)
    for changes in ({"stage2": tmp_path / "stage2"}, {"stage1_precision": "bf16"}):
        settings = bench.settings(store, k=CIRR_IMAGES, until="rerank", **changes)
        pairs = planned(settings, work)["rerank"][2]
        wanted = scores_of(go(settings))
        assert wanted.keys() > scores_of(cirr_run.run).keys()
        assert work.take()["pairs"] == len(wanted) == pairs


def test_a_damaged_artifact_is_passed_over_and_a_deleted_one_not_missed(
    cirr_run: Finished, tmp_path: Path, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    bench, store = cirr_run.bench, tmp_path / "store"
    shutil.copytree(cirr_run.store, store)
    fewer = bench.settings(store, k=3, until="rerank")
    assert planned(fewer, work)["rerank"] == (0, CIRR_QUERIES, 0)
    (part,) = (store / "artifacts" / "rerank").glob("*/scores-*.parquet")
    good = part.read_bytes()
    part.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with caplog.at_level(logging.WARNING):
        run = go(fewer)
    assert "nothing is taken over from" in caplog.text
    pairs = scores_of(run)
    assert work.take()["pairs"] == len(pairs)
    shutil.rmtree(part.parent)
    assert "rerank" not in go(fewer).made
    go(bench.settings(store, k=2, until="rerank"))
    assert work.take() == {}


# --- pictures and texts


def test_one_changed_photo_is_one_picture_to_see(fiq: Bench, tmp_path: Path, work: Work) -> None:
    root, store = tmp_path / "data", tmp_path / "store"
    shutil.copytree(fiq.root, root)
    bench = replace(fiq, root=root, categories=fiq.categories[:1])
    settings = bench.settings(store, tokens="cache", until="encode")
    go(settings)
    work.take()
    photo = sorted((root / "images").glob("*.png"))[3]
    Image.open(photo).rotate(180).save(photo)
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
    copied = {
        stage: sorted(
            json.loads(one.read_text())["copied"]
            for one in (store / "sittings" / stage).rglob("*.json")
        )
        for stage in ("tokens", "encode", "fuse")
    }
    known = len(distinct_pictures(run.artifacts["ingest"].read("images"))) - 1
    texts = len(queries) - len(asked)
    assert copied == {"tokens": [0, known], "encode": [0, known], "fuse": [0, texts]}
    fresh = go(bench.settings(tmp_path / "fresh", until="encode"))
    for stage, kind, key in (("encode", "embeddings", "image_id"), ("fuse", "queries", "query_id")):
        mine, theirs = (numbers(one.artifacts[stage].read(kind), key) for one in (run, fresh))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=rounding_of(fiq.pair))


def test_new_questions_see_their_references_alone(
    cirr_run: Finished, tmp_path: Path, work: Work
) -> None:
    """And have the bytes that they would have beside all pictures."""
    store = tmp_path / "store"
    shutil.copytree(cirr_run.store, store)
    lost = store / cirr_run.run.artifacts["fuse"].folder.relative_to(cirr_run.store)
    before = {path.name: path.read_bytes() for path in lost.glob("*.parquet")}
    shutil.rmtree(lost)
    ingested = cirr_run.run.artifacts["ingest"]
    asked = set(ingested.read("queries")["reference_id"].to_pylist())
    assert len(asked) < CIRR_IMAGES
    settings = cirr_run.bench.settings(store, until="encode")
    assert planned(settings, work)["fuse"][:2] == (len(asked), CIRR_QUERIES)
    go(settings)
    assert work.take()["pictures"] == len(asked)
    assert {path.name: path.read_bytes() for path in lost.glob("*.parquet")} == before


def numbers(table: pa.Table, key: str) -> np.ndarray:
    return vectors_of(table.sort_by(key)["embedding"])
