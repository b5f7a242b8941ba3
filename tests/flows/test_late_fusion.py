"""A late fusion of the stages' scores: its order, its fitted weight, and what is told of it."""

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cir_core.errors import UsageError
from cir_core.late_fusion import WEIGHTS
from flows.inputs import resolve_inputs
from flows.origins import resolve
from flows.plan import make_plan
from flows.run import Run, run_pipeline, selection_of
from flows.views.runs import print_run
from storage.catalog import query
from tasks.results.export import export
from tests.support.small_benchmarks import Bench, Finished
from tests.support.then import Then


@pytest.fixture
def store(fiq_run: Finished, tmp_path: Path) -> Path:
    """Of a run without late fusion: all but the order is there."""
    shutil.copytree(fiq_run.store, tmp_path / "store")
    return tmp_path / "store"


def rows(run: Run, sql: str) -> list[dict[str, Any]]:
    columns, found = query(run.catalog, sql)
    return [dict(zip(columns, row, strict=True)) for row in found]


def plain_order(pool: list[dict[str, Any]], weight: float, scale: str) -> list[str]:
    """The definition, for one query's pool."""
    one, two = (np.array([row[f"stage{n}_score"] for row in pool], float) for n in (1, 2))
    if scale == "standardised":
        one, two = ((each - each.mean()) / each.std() for each in (one, two))
    fused = two + weight * one
    order = sorted(range(len(pool)), key=lambda row: (-fused[row], pool[row]["position"]))
    return [pool[row]["image_id"] for row in order]


@pytest.mark.parametrize(("scale", "weight"), [("standardised", 0.7), ("raw", 25.0)])
def test_the_order_is_the_sums(fiq: Bench, store: Path, scale: str, weight: float) -> None:
    run = fiq.run(store, late_fusion=weight, late_fusion_scores=scale)
    assert run.made == ("rank", "evaluate", "publish", "report")
    sql = f"""SELECT r.*, g.position FROM rankings r JOIN queries q USING (run_id, query_id)
              JOIN gallery g ON g.run_id = r.run_id AND g.category = q.category
              AND g.image_id = r.image_id WHERE r.run_id = '{run.run_id}' ORDER BY rank"""
    pools = defaultdict(list)
    for row in rows(run, sql):
        pools[row["query_id"]].append(row)
    assert pools
    for pool in pools.values():
        assert [row["image_id"] for row in pool] == plain_order(pool, weight, scale)
    steps = [np.diff([row["stage2_score"] for row in pool]) for pool in pools.values()]
    assert np.concatenate(steps).max() > 0, "the order is not stage 2's"
    falls = f"""SELECT count(*) AS n FROM (SELECT fused_score, lag(fused_score) OVER (
                PARTITION BY query_id, pool ORDER BY rank) AS above FROM fused_scores
                WHERE run_id = '{run.run_id}') WHERE fused_score > above + 1e-9"""
    assert rows(run, falls) == [{"n": 0}]
    (told,) = rows(run, f"SELECT * FROM runs WHERE run_id = '{run.run_id}'")
    assert (told["late_fusion"], told["late_fusion_scores"]) == (weight, scale)
    assert told["late_fusion_fitted_on"] is None
    assert f"plus {weight:.4g} times stage 1" in run.report.read_text().replace("&#39;", "'")
    (trec,) = export(run.evaluated.store, "trec", run=run.run_id, folder=store).files[:1]
    lines = [line.split() for line in trec.read_text().splitlines()]
    by_score = sorted(lines, key=lambda line: (line[0], -float(line[4])))
    assert by_score == sorted(lines, key=lambda line: (line[0], int(line[3])))


def test_none_and_0_are_stage_2s_own_order(fiq_run: Finished, store: Path) -> None:
    run = fiq_run.bench.run(store, late_fusion=0.0, late_fusion_scores="raw")
    assert (run.made, run.run_id) == ((), fiq_run.run.run_id)


@pytest.fixture(scope="module")
def fitted(fiq_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Path, Run]:
    """Of a dataset whose train split has val's queries, and others' categories none."""
    folder = tmp_path_factory.mktemp("fitted")
    shutil.copytree(fiq_run.store, folder / "store")
    shutil.copytree(fiq_run.bench.root, folder / "data")
    for file in [*(folder / "data").glob("*/*.val.json")]:
        shutil.copy(file, file.with_name(file.name.replace(".val.", ".train.")))
    bench = Bench("fiq", folder / "data", fiq_run.bench.pair, fiq_run.bench.categories)
    return bench, folder / "store", bench.run(folder / "store", late_fusion="fit")


def test_the_weight_is_the_best_of_the_selection_queries(
    fitted: tuple[Bench, Path, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    bench, store, run = fitted
    curve = rows(run, f"SELECT * FROM late_fusion_curve WHERE run_id = '{run.run_id}'")
    means = {
        weight: np.mean([row["recall"] for row in curve if row["weight"] == weight])
        for weight in WEIGHTS
    }
    best = min(weight for weight in WEIGHTS if means[weight] == max(means.values()))
    assert {row["weight"] for row in curve if row["is_chosen"]} == {best}
    (told,) = rows(run, f"SELECT * FROM runs WHERE run_id = '{run.run_id}'")
    assert told["late_fusion"] == best
    assert told["late_fusion_fitted_on"] == "selection, fiq-original-kept"
    other = bench.run(store, split="selection", late_fusion=0.7)  # measures what was fitted on
    metrics = other.evaluated.read("metrics").to_pylist()
    measured = [row for row in metrics if (row["stage"], row["metric"]) == ("stage2", "recall")]
    averaged = [row for row in measured if row["category"] == "average"] or measured
    expected = {row["k"]: (row["value"], row["n"]) for row in averaged}
    mine = {row["k"]: (row["recall"], row["n"]) for row in curve if row["weight"] == 0.7}
    assert mine == expected
    print_run(run, Console(width=200))
    assert f"{best:g} x stage 1's, standardised; weight fitted on selection" in (
        capsys.readouterr().out
    )
    assert "Late fusion" in run.report.read_text()
    assert "fit" in run.artifacts
    of_selection = [
        f"selection/{name}" for name in ("encode", "fuse", "retrieve", "rerank", "rank")
    ]
    assert run.made[: run.made.index("fit")] == (*of_selection,)


def test_the_catalog_names_its_own_artifacts_and_not_those_that_it_was_fitted_on(
    fitted: tuple[Bench, Path, Run],
) -> None:
    _, _, run = fitted
    of_run = f"run_id = '{run.run_id}'"
    named = rows(run, f"SELECT stage, folder FROM artifacts WHERE {of_run}")
    mine = {stage: f"artifacts/{stage}/{one.fingerprint}" for stage, one in run.artifacts.items()}
    assert {row["stage"]: row["folder"] for row in named} == mine
    asked = rows(run, f"SELECT query_id FROM query_embeddings WHERE {of_run} ORDER BY ALL")
    assert asked == rows(run, f"SELECT query_id FROM queries WHERE {of_run} ORDER BY ALL")


def test_a_fit_is_made_once_and_planned(
    fitted: tuple[Bench, Path, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)
    bench, store, run = fitted
    again = bench.run(store, late_fusion="fit")
    assert (again.made, again.run_id) == ((), run.run_id)
    settings = bench.settings(store, late_fusion="fit")
    assert {one.state for one in make_plan(settings, started=0).stages} == {"done"}
    raw = settings.model_copy(update={"late_fusion_scores": "raw"})
    states = {one.stage: one.state for one in make_plan(raw, started=0).stages}
    assert {name for name, state in states.items() if state != "done"} == {
        *("fit", "rank", "evaluate", "publish", "report")
    }

    fresh = bench.settings(tmp_path, late_fusion="fit")
    whole = make_plan(fresh, started=0)
    first = make_plan(selection_of(fresh), started=0)
    (fit,) = (one.effort for one in whole.stages if one.stage == "fit")
    efforts = {one.stage: one.effort for one in first.stages}
    assert (fit.images, fit.pairs) == (efforts["encode"].images, efforts["rerank"].pairs)
    assert (fit.flops, fit.bytes) == (first.total.flops, first.total.bytes)
    alone = make_plan(fresh.model_copy(update={"late_fusion": None}), started=0)
    assert whole.published_flops == alone.published_flops + first.published_flops


def test_queries_that_changed_after_the_fit_are_told(fitted: tuple[Bench, Path, Run]) -> None:
    bench, store, _ = fitted
    captions = bench.root / "captions" / "cap.dress.train.json"
    before = captions.read_text()
    settings = bench.settings(store, late_fusion="fit")
    run = run_pipeline(settings, Then(report=lambda: captions.write_text(before + " ")))
    captions.write_text(before)
    assert (run.made, run.changed) == ((), (str(captions),))
    assert run_pipeline(settings, Then()).changed == ()


# --- what cannot be meant


@pytest.mark.parametrize("weight", ["-1", "nan", "inf", "much"])
def test_weights_that_mean_nothing(weight: str) -> None:
    with pytest.raises(UsageError, match=r"late_fusion \(from flag\)"):
        resolve({"late_fusion": weight}, {})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"late_fusion": 0.5, "until": "retrieve"}, "the run ends with stage 1"),
        ({"late_fusion_scores": "raw"}, "no score is added"),
        ({"late_fusion": "fit", "candidates": "run.trec"}, "the first stage is handed over"),
        ({"late_fusion": "fit", "dataset": "own", "categories": ()}, "the very queries"),
    ],
)
def test_what_there_is_nothing_to_add_or_fit_for(
    fiq: Bench, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    root = tmp_path / "shop"
    shutil.copytree(fiq.root / "images", root)
    (root / "queries.csv").write_text("reference,text\na,b\n")
    data = {"data_root": root} if changes.get("dataset") == "own" else {}
    with pytest.raises(UsageError, match=told):
        resolve_inputs(fiq.settings(tmp_path, **data, **changes))
