"""``analyse``: what is asked beside a run, held to plain loops and to a run of all images."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.engines.engine import InProcess
from flows.graph import Graph, graph_of
from flows.inputs import resolve_inputs
from flows.plan import make_plan
from flows.run import Run, check_models, ingest_split
from flows.settings import Settings
from flows.views.analyses import analyses_summary
from flows.views.values import json_text
from storage.catalog import query
from storage.runs import probes_of
from storage.tables import vectors_of
from storage.view import View
from storage.views import Encoded, Evaluated, Probed
from tasks.machine import Machine
from tasks.results.analyses.every import ANALYSES, analyse
from tasks.stages.drop import Drop
from tasks.stages.output import content_of, labelled_content
from tasks.stages.probe import Probe
from tasks.stages.read_embeddings import ReadEmbeddings
from tasks.stages.stage import make, make_here
from tests.support.handed_over import hand_over
from tests.support.small_benchmarks import Bench, Finished, rounding_of


def rows(catalog: Path, sql: str) -> list[dict[str, Any]]:
    columns, found = query(catalog, sql)
    return [dict(zip(columns, row, strict=True)) for row in found]


@pytest.fixture(scope="module")
def analysed(fiq_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Run:
    store = tmp_path_factory.mktemp("analysed") / "store"
    shutil.copytree(fiq_run.store, store)
    return fiq_run.bench.run(store, until="analyse")


def vectors(run: Run) -> dict[str, np.ndarray]:
    """Stage 1's, of images, in float64."""
    encoded = run.artifacts["encode"]
    assert isinstance(encoded, Encoded)
    table = encoded.read("embeddings")
    matrix = vectors_of(table["embedding"]).astype(np.float64)
    return dict(zip(table["image_id"].to_pylist(), matrix, strict=True))


def galleries(run: Run) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows(run.catalog, "SELECT category, image_id FROM gallery ORDER BY position"):
        found.setdefault(row["category"], []).append(row["image_id"])
    return found


# --- the store


def test_a_run_keeps_its_name_and_what_was_made(fiq_run: Finished, analysed: Run) -> None:
    assert analysed.made == ("dropped", "dropped_scores", "probe", "publish", "report")
    assert analysed.run_id == fiq_run.run.run_id


def test_probes_are_kept_until_they_are_gone(
    fiq_run: Finished, analysed: Run, tmp_path: Path
) -> None:
    """A run that is repeated leaves them, and what tells of them; without them it is told anew, and
    with them the same again."""
    store, bench = tmp_path / "store", fiq_run.bench
    shutil.copytree(analysed.evaluated.store.local(""), store)
    assert bench.run(store).made == ()
    assert bench.run(store, until="analyse").made == ()
    probes = "SELECT * FROM probes ORDER BY ALL"
    before = rows(store / "cir.duckdb", probes)
    assert len(before) == len(rows(store / "cir.duckdb", "SELECT * FROM queries"))
    (part,) = (store / "artifacts" / "probe").glob("*/probes.parquet")
    part.write_bytes(b"damaged")
    assert bench.run(store).made == ("publish", "report")
    assert rows(store / "cir.duckdb", probes) == []
    assert bench.run(store, until="analyse").made == ("probe", "publish", "report")
    assert rows(store / "cir.duckdb", probes) == before


def test_probes_of_other_runs_are_not_this_ones(analysed: Run) -> None:
    assert isinstance(probes_of(analysed.evaluated), Probed)
    assert probes_of(Evaluated(analysed.evaluated.store, "0" * 32)) is None


def test_outputs_tell_of_probes_and_comparisons_do_not(fiq_run: Finished, analysed: Run) -> None:
    without = content_of(fiq_run.run.evaluated)
    assert content_of(analysed.evaluated) != without
    assert labelled_content(analysed.evaluated) == without


def test_a_plan_tells_what_is_asked_beside(
    fiq_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)
    store = tmp_path / "store"
    shutil.copytree(fiq_run.store, store)
    plan = make_plan(fiq_run.bench.settings(store, until="analyse"), started=0)
    left = {one.stage: one.effort for one in plan.stages if one.state == "to do"}
    assert [*left] == ["dropped", "dropped_scores", "probe", "publish", "report"]
    assert left["dropped_scores"].pairs
    assert left["dropped_scores"].seconds > 0
    assert left["probe"].seconds > 0


# --- ranks


def test_the_whole_query_ranks_its_target_as_the_run_does(analysed: Run) -> None:
    sql = (
        "SELECT q.query_id, composed_rank, target_stage1_rank FROM queries q "
        "LEFT JOIN probes USING (run_id, query_id)"
    )
    for row in rows(analysed.catalog, sql):
        assert row["composed_rank"] == row["target_stage1_rank"] is not None


def test_halves_and_references_rank_as_a_plain_loop_has_it(analysed: Run) -> None:
    known, members = vectors(analysed), galleries(analysed)
    sql = "SELECT * FROM queries JOIN probes USING (run_id, query_id)"
    fused = analysed.artifacts["fuse"].read("queries", ["query_id", "embedding"])
    asked = dict(
        zip(
            fused["query_id"].to_pylist(),
            vectors_of(fused["embedding"]).astype(np.float64),
            strict=True,
        )
    )
    for row in rows(analysed.catalog, sql):
        gallery = members[row["category"]]
        order = _order(known[row["reference_id"]], gallery, known)
        assert row["image_rank"] == 1 + order.index(row["targets"][0])
        order = _order(asked[row["query_id"]], gallery, known)
        assert row["reference_rank"] == 1 + order.index(row["reference_id"])
        assert row["text_rank"] is not None
        assert row["reference_rank_z_t"] is None, "of too few references"


def _order(asked: np.ndarray, gallery: list[str], known: dict[str, np.ndarray]) -> list[str]:
    scores = np.array([np.float32(asked @ known[image]) for image in gallery])
    return [gallery[row] for row in np.argsort(-scores, kind="stable")]


def test_neighbours_of_targets_are_the_nearest_others(analysed: Run) -> None:
    known, members = vectors(analysed), galleries(analysed)
    sql = "SELECT * FROM queries JOIN probes USING (run_id, query_id)"
    for row in rows(analysed.catalog, sql):
        (target,) = row["targets"]
        others = [one for one in members[row["category"]] if one != target]
        cosines = [np.float32(known[target] @ known[one]) for one in others]
        assert row["target_neighbour_id"] == others[int(np.argmax(cosines))]
        assert row["target_neighbour_cosine"] == pytest.approx(max(cosines), abs=1e-6)


# --- what was dropped


def test_dropped_images_score_as_where_all_are_kept(
    analysed: Run, fiq: Bench, tmp_path: Path
) -> None:
    """And where all are kept, none was dropped."""
    everything = make_all(fiq, analysed, tmp_path, k="all")
    scores = {
        (row["query_id"], row["image_id"]): (row["stage1_score"], row["stage2_score"])
        for row in everything["rank"].read("rankings").to_pylist()
    }
    sample = rows(analysed.catalog, "SELECT * FROM dropped_pairs")
    kept = "SELECT query_id, image_id FROM candidates WHERE pool = 'gallery'"
    pairs = {(row["query_id"], row["image_id"]) for row in sample}
    assert len(pairs) == len(sample) > 20
    assert not pairs & {tuple(row.values()) for row in rows(analysed.catalog, kept)}
    tolerance = rounding_of(fiq.pair)
    for row in sample:
        stage1, stage2 = scores[row["query_id"], row["image_id"]]
        assert row["stage1_score"] == stage1
        assert row["stage2_score"] == pytest.approx(stage2, abs=tolerance)
    assert not everything["probe"].read("dropped").num_rows
    assert everything["probe"].read("probes").equals(analysed.artifacts["probe"].read("probes"))


@pytest.mark.parametrize("setting", ["candidates", "embeddings"])
def test_a_first_stage_that_is_handed_over_is_analysed(
    cirr: Bench, cirr_run: Finished, tmp_path: Path, setting: str
) -> None:
    """With the protocol's reference removed, and what was handed over being stage 1's own."""
    filtering = graph_of_run(cirr.settings(cirr_run.store)).filtering
    given = hand_over(filtering, tmp_path)[setting]
    made = make_all(cirr, cirr_run.run, tmp_path, **{setting: given})
    found = made["probe"].read("probes").to_pylist()
    queries = rows(cirr_run.run.catalog, "FROM queries")
    expected = {row["query_id"]: row["target_stage1_rank"] for row in queries}
    assert {row["query_id"]: row["composed_rank"] for row in found} == expected
    assert {row["text_rank"] is None for row in found} == {setting == "embeddings"}
    references = {row["query_id"]: row["reference_id"] for row in queries}
    sample = made["probe"].read("dropped").to_pylist()
    assert sample
    assert all(row["image_id"] != references[row["query_id"]] for row in sample)
    assert {row["stage1_score"] is None for row in sample} == {setting == "candidates"}


@pytest.mark.parametrize("asked", [{}, {"k": "auto", "coverage": 0.5}])
def test_what_is_asked_beside_looks_where_the_run_looked(
    fiq_run: Finished, tmp_path: Path, asked: dict[str, Any]
) -> None:
    bench, store = fiq_run.bench, fiq_run.store
    given = hand_over(graph_of_run(bench.settings(store)).filtering, tmp_path)["embeddings"]
    graph = graph_of_run(bench.settings(store, embeddings=given, until="analyse", **asked))
    (read,) = (one for one in graph.stages if isinstance(one, ReadEmbeddings))
    asking = [one for one in graph.stages if isinstance(one, Drop | Probe)]
    assert [one.embedded for one in asking] == [read.made] * 2


def graph_of_run(settings: Settings) -> Graph:
    inputs, engine = resolve_inputs(settings), InProcess()
    models = check_models(inputs, engine).view
    return graph_of(inputs, ingest_split(settings, inputs, engine).ingested, models)


def make_all(bench: Bench, run: Run, folder: Path, **changes: Any) -> dict[str, View]:
    """The artifacts of an analysed run of other settings, by stage, over the first pass of a run
    that is there."""
    store = folder / "store"
    shutil.copytree(run.evaluated.store.local("artifacts"), store / "artifacts")
    stages = graph_of_run(bench.settings(store, until="analyse", **changes)).stages
    for stage in stages:
        make(stage, Machine(batch=5), make_here)
    return {stage.name: stage.made for stage in stages}


# --- what is told


def test_all_is_told_in_json(analysed: Run) -> None:
    analyses = analyse(analysed.catalog, analysed.run_id)
    told = json.loads(json_text(analyses_summary(analysed, analyses)))
    assert [one["name"] for one in told["analyses"]] == [one.__name__ for one in ANALYSES]
    assert told["run_id"] == analysed.run_id
    assert all(one["answer"] for one in told["analyses"])
    for one in told["analyses"]:
        for numbers in one["numbers"]:
            assert len(numbers["rows"]) == len(rows(analysed.catalog, numbers["sql"]))
