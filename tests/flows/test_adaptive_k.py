"""-k auto: each query's candidates are the images within a calibrated reach of its best."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from cir_core.conformal import Assurance, fold_of, threshold
from cir_core.errors import PreflightError, UsageError
from flows.engines.engine import InProcess
from flows.graph import Graph, filtering_of, graph_of
from flows.inputs import resolve_inputs
from flows.plan import make_plan
from flows.run import Run, check_models, ingest_split
from flows.views.plans import print_plan
from flows.views.runs import print_run, run_summary
from storage.catalog import query
from storage.tables import vectors_of
from tasks.machine import Machine
from tasks.results.export import export
from tasks.results.record.expected import check, read_expected
from tasks.results.record.numbers import schema_text
from tasks.results.report.cost import STAGES
from tasks.stages.costs import lineage
from tasks.stages.stage import make, make_here
from tests.support.handed_over import hand_over
from tests.support.small_benchmarks import Bench, Finished

ASKED: dict[str, Any] = {"k": "auto", "coverage": 0.5}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)


@pytest.fixture(scope="module")
def adaptive(fiq_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """In a store that has a run of K = 6, too."""
    store = tmp_path_factory.mktemp("adaptive") / "store"
    shutil.copytree(fiq_run.store, store)
    return replace(fiq_run, store=store, run=fiq_run.bench.run(store, **ASKED))


def made_stages(bench: Bench, store: Path, **changes: Any) -> Graph:
    """Stage 1 alone, without catalog and report."""
    inputs = resolve_inputs(bench.settings(store, **ASKED, until="retrieve", **changes))
    models = check_models(inputs, InProcess()).view
    ingested = ingest_split(bench.settings(store), inputs, InProcess()).ingested
    found = graph_of(inputs, ingested, models)
    for stage in found.stages:
        make(stage, Machine(), make_here)
    return found


def rows(run: Run, sql: str) -> list[tuple[Any, ...]]:
    return query(run.catalog, sql.replace("MINE", f"run_id = '{run.run_id}'"))[1]


def scores_of(run: Run) -> dict[str, dict[str, float]]:
    """Stage 1's, of each query and all of its gallery, in fp64 and rounded once."""
    retrieved, ingested = run.evaluated.candidates, run.evaluated.ingested
    images = retrieved.encoded.read("embeddings")
    asked = retrieved.fused.read("queries")
    image, one = (
        dict(zip(table[key].to_pylist(), vectors_of(table["embedding"]).astype(float), strict=True))
        for table, key in ((images, "image_id"), (asked, "query_id"))
    )
    members: dict[str, list[str]] = {}
    for row in ingested.read("gallery").to_pylist():
        members.setdefault(row["gallery"], []).append(row["image_id"])
    return {
        row["query_id"]: {
            name: float(np.float32(one[row["query_id"]] @ image[name]))
            for name in members[row["category"]]
        }
        for row in ingested.read("queries").to_pylist()
    }


def test_candidates_are_the_images_within_reach(adaptive: Finished) -> None:
    """Gaps, thresholds and candidates by their definitions."""
    run = adaptive.run
    assert run.made == (
        *("threshold", "retrieve", "rerank", "rank", "evaluate"),
        *("publish", "report"),
    )
    scores = scores_of(run)
    asked = rows(run, "SELECT query_id, category, targets[1] FROM queries WHERE MINE")
    gap = {name: max(scores[name].values()) - scores[name][target] for name, _, target in asked}
    told = rows(run, "SELECT query_id, fold, gap FROM calibration WHERE MINE")
    assert {(name, fold) for name, fold, _ in told} == {(name, fold_of(name)) for name in gap}
    assert {name: value for name, _, value in told} == pytest.approx(gap, abs=1e-6)
    exact = {name: value for name, _, value in told}
    sql = "SELECT query_id, image_id FROM candidates WHERE MINE ORDER BY query_id, stage1_rank"
    found: dict[str, list[str]] = {}
    for name, image in rows(run, sql):
        found.setdefault(name, []).append(image)
    reaches = {}
    for name, category, _ in asked:
        others = [
            exact[other]
            for other, theirs, _ in asked
            if theirs == category and fold_of(other) != fold_of(name)
        ]
        reach = threshold(np.array(others), Assurance(0.5))
        assert reach is not None
        best = max(scores[name].values())
        wanted = [image for image, score in scores[name].items() if best - score <= reach + 1e-6]
        assert set(found[name]) == set(wanted)
        assert len(found[name]) >= 1
        reaches[category, fold_of(name)] = (pytest.approx(reach), len(others))
    columns = "gallery, fold, threshold, n, coverage_asked, risk, guarantee"
    sql = f"SELECT {columns} FROM adaptive_k WHERE MINE"
    for gallery, fold, reach, n, *assured in rows(run, sql):
        assert reaches[gallery, fold] == (reach, n)
        assert assured == [0.5, None, "P(target among candidates) >= 0.5"]


def test_each_number_knows_that_k_is_a_querys_own(adaptive: Finished) -> None:
    run = adaptive.run
    ks = [k for (k,) in rows(run, "SELECT count(*) FROM candidates WHERE MINE GROUP BY query_id")]
    assert len(set(ks)) > 1, "they differ, or nothing is shown here"
    assert rows(run, "SELECT k, coverage_asked FROM runs WHERE MINE") == [(max(ks), 0.5)]
    made = [view.stage for view in lineage(run.evaluated)]
    assert made == [stage for stage in STAGES if stage in made], "what the page's costs begin with"
    worked = "SELECT DISTINCT gflop FROM costs WHERE MINE AND stage IN ('threshold', 'retrieve')"
    assert len(rows(run, worked)) == 1, "either compares every query with every image"
    covered = "SELECT avg(is_candidate::INT) FROM rank_movement WHERE MINE AND category = 'dress'"
    value = "SELECT k, value FROM metrics WHERE MINE AND metric = 'coverage' AND category = 'dress'"
    assert rows(run, value) == [(0, pytest.approx(rows(run, covered)[0][0]))]
    for stage in ("stage1", "stage2"):
        recalls = f"SELECT category, k, round({stage}, 9) FROM recall WHERE MINE ORDER BY ALL"
        metrics = f"""SELECT category, k, round(value, 9) FROM metrics WHERE MINE
                      AND metric = 'recall' AND stage = '{stage}' ORDER BY ALL"""
        assert rows(run, recalls) == rows(run, metrics)
    curve = f"""SELECT category, k, round(recall, 9), round(coverage, 9) FROM k_curve
                WHERE MINE AND k_candidates = {max(ks)} ORDER BY ALL"""
    metrics = """SELECT r.category, r.k, round(r.value, 9), round(c.value, 9)
                 FROM metrics r JOIN metrics c USING (run_id, category) WHERE r.MINE
                 AND r.metric = 'recall' AND r.stage = 'stage2' AND c.metric = 'coverage'
                 ORDER BY ALL"""
    assert rows(run, curve) == rows(run, metrics)


def test_it_is_told_on_the_terminal_in_json_and_on_the_page(
    adaptive: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    run = adaptive.run
    print_run(run, Console(markup=False, highlight=False, width=200))
    told = capsys.readouterr().out
    assert "K = auto" in told
    assert "coverage " in told
    assert "coverage@" not in told
    assert "adaptive K: " in told
    assert "assured: P(target among candidates) >= 0.5, for queries like" in told
    assert {row["coverage_asked"] for row in run_summary(run)["adaptive_k"]} == {0.5}
    most = run.evaluated.candidates.ks().max()
    card = (run.report.parent / "run-card.md").read_text()
    assert f"up to {most} candidates a query (adaptive K, coverage 0.5 asked)" in card
    page = run.report.read_text()
    assert "adaptive K, coverage 0.5 asked" in page
    assert "No order of the candidates can reach" in page


def test_an_export_has_what_there_is_and_a_submission_is_refused(
    adaptive: Finished, cirr_run: Finished, tmp_path: Path
) -> None:
    run = adaptive.run
    (lines, _) = export(run.evaluated.store, "trec", run=run.run_id, folder=tmp_path).files
    count = len(lines.read_text().splitlines())
    assert [(count,)] == rows(run, "SELECT count(*) FROM rankings WHERE MINE")
    shutil.copytree(cirr_run.store, tmp_path / "store")
    other = made_stages(cirr_run.bench, tmp_path / "store").evaluated
    assert other is not None
    with pytest.raises(PreflightError, match="too few for a submission") as refused:
        export(other.store, "cirr-submission", run=other.run_id, stage="stage1")
    assert "or more" in refused.value.item
    assert "-k 50" in refused.value.remedy


def test_a_plan_counts_the_pairs_that_there_will_be(
    adaptive: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, pairs = adaptive.bench, rows(adaptive.run, "SELECT count(*) FROM candidates WHERE MINE")
    again = bench.run(adaptive.store, **ASKED)
    assert (again.made, again.run_id) == ((), adaptive.run.run_id)
    encoded = tmp_path / "encoded"
    shutil.copytree(adaptive.store, encoded)
    for stage in ("threshold", "retrieve"):
        shutil.rmtree(encoded / "artifacts" / stage)
    known = make_plan(bench.settings(encoded, **ASKED), started=0.0)
    (planned,) = (stage for stage in known.stages if stage.stage == "retrieve")
    assert [(planned.effort.pairs,)] == pairs
    assert known.assumed_k is None
    assert not [*(encoded / "artifacts").glob("threshold/*/*.parquet")]
    unknown = make_plan(bench.settings(tmp_path / "new", **ASKED), started=0.0)
    assert unknown.assumed_k == 100
    print_plan(unknown, Console(markup=False, highlight=False, width=200))
    assert "pairs are counted as 100 candidates a query" in capsys.readouterr().out


def test_a_late_fusion_orders_each_querys_own_candidates(adaptive: Finished) -> None:
    asked: dict[str, Any] = {**ASKED, "late_fusion": 0.7, "until": "evaluate"}
    plan = make_plan(adaptive.bench.settings(adaptive.store, **asked), started=0.0)
    left = [one.stage for one in plan.stages if one.state != "done"]
    run = adaptive.bench.run(adaptive.store, **asked)
    assert list(run.made) == left == ["rank", "evaluate"]
    ranked, own = (one.evaluated.ranked.read("rankings") for one in (run, adaptive.run))
    assert plan.stages[-2].effort.pairs == ranked.num_rows
    pairs = [("query_id", "ascending"), ("image_id", "ascending")]
    assert ranked.sort_by(pairs)["image_id"] == own.sort_by(pairs)["image_id"]
    assert ranked.sort_by(pairs)["rank"] != own.sort_by(pairs)["rank"]


def test_embeddings_from_files_are_searched_alike(adaptive: Finished, tmp_path: Path) -> None:
    inputs = resolve_inputs(adaptive.bench.settings(adaptive.store))
    models = check_models(inputs, InProcess()).view
    given = hand_over(filtering_of(inputs, adaptive.run.evaluated.ingested, models), tmp_path)
    found = made_stages(adaptive.bench, adaptive.store, embeddings=given["embeddings"])
    assert [stage.name for stage in found.later] == [
        *("embeddings", "threshold", "retrieve", "evaluate"),
    ]
    views = adaptive.run.evaluated.candidates, found.filtering.retrieve.made
    own, theirs = (view.read("candidates") for view in views)
    assert views[0] != views[1]
    assert theirs.sort_by("query_id") == own.sort_by("query_id")


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"coverage": 0.9}, "--coverage without -k auto"),
        ({"risk": 0.1, "coverage": 0.9}, "--coverage and --risk without -k auto"),
        ({"k": "auto", "index": "flat"}, "searches exactly"),
        ({"k": "auto", "candidates": "run.trec"}, "without -k auto"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    adaptive: Finished, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        adaptive.bench.run(adaptive.store, **changes)
    assert refused.value.remedy


def test_too_few_labelled_queries_are_told_before_any_picture_is_seen(
    fiq_run: Finished, tmp_path: Path
) -> None:
    with pytest.raises(PreflightError, match="too few to choose K by") as refused:
        fiq_run.bench.run(tmp_path / "store", k="auto")
    assert refused.value.item == "gallery dress"
    assert "takes 19 to calibrate with" in refused.value.cause
    assert "label 38 queries" in refused.value.remedy
    assert not (tmp_path / "store/artifacts/encode").exists()


def test_its_record_is_valid_and_says_how_many_candidates_are_meant(adaptive: Finished) -> None:
    folder = adaptive.run.report.parent
    document = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    validator = Draft202012Validator(json.loads(schema_text()))
    assert [one.message for one in validator.iter_errors(document)] == []
    assert document["facts"]["settings"]["k"] == "auto"
    assert document["facts"]["settings"]["coverage"] == 0.5
    assert any(text.startswith("K is adaptive") for text in document["caveats"])
    assert "up to" in (folder / "run-card.md").read_text(encoding="utf-8")
    expected = read_expected(folder / "expected.toml")
    assert check(adaptive.run.evaluated, expected).ok
