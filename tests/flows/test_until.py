"""A run may end at any stage, and says then what it knows and no more; K may be a whole gallery."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cir_core.errors import PreflightError, UsageError
from flows.ends import MADE, End
from flows.engines.engine import InProcess
from flows.graph import STAGES, name_of
from flows.inputs import resolve_inputs
from flows.plan import make_plan
from flows.run import Run, run_pipeline
from flows.views.runs import print_run, run_summary
from storage.catalog import query
from tasks.results.export import export
from tests.support.handed_over import HANDED_OVER
from tests.support.small_benchmarks import FIQ_IMAGES, Bench, Finished


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)


def rows(catalog: Path, sql: str) -> list[dict[str, Any]]:
    columns, found = query(catalog, sql)
    return [dict(zip(columns, row, strict=True)) for row in found]


@pytest.fixture(scope="module")
def filtered(cirr: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Stage 1 alone, of a dataset with both pools; no model of stage 2 is given."""
    return cirr.run(tmp_path_factory.mktemp("filtered"), until="retrieve", stage2=None)


# --- where a run ends


def test_every_end_is_made_of_known_stages() -> None:
    """Embeddings are made where they are handed over, thresholds where K is adaptive."""
    names = [name_of(stage) for stage in STAGES]
    for made in MADE.values():
        mine = [name for name in made if name not in ("embeddings", "threshold")]
        assert mine == [name for name in names if name in made]
    assert {*names, *map(name_of, HANDED_OVER), "threshold"} == {*MADE["analyse"]}


@pytest.mark.parametrize("until", ["encode", "evaluate"])
def test_a_run_makes_what_its_end_needs(
    fiq_run: Finished, tmp_path: Path, until: End, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(fiq_run.store / "artifacts" / "ingest", store / "artifacts" / "ingest")
    shutil.copytree(fiq_run.store / "artifacts" / "pair", store / "artifacts" / "pair")
    bench = fiq_run.bench
    settings = bench.settings(store, until=until)
    planned = [one.stage for one in make_plan(settings, started=0).stages]
    run = run_pipeline(settings, InProcess())
    there = {folder.name for folder in (store / "artifacts").iterdir()} - {"pair"}
    assert there == {*planned} == {*MADE[until]} - {"tokens", "embeddings", "threshold"}
    assert [*run.artifacts] == planned
    assert not (store / "cir.duckdb").exists()
    print_run(run, Console(width=300))
    told = capsys.readouterr().out
    for name, view in run.artifacts.items():
        assert f"{name}:" in told
        assert str(view.folder) in told
        assert view.is_done
    assert ("gain" in told) == (until == "evaluate")
    assert run_summary(run)["catalog"] is None
    assert run_pipeline(settings, InProcess()).made == ()


def test_a_run_that_ended_early_is_gone_on_with(fiq_run: Finished, tmp_path: Path) -> None:
    """And gives what one that ended late gives."""
    bench = fiq_run.bench
    bench.run(tmp_path, until="rerank")
    run = bench.run(tmp_path)
    assert run.made == ("evaluate", "publish", "report")
    assert run.run_id == fiq_run.run.run_id


def test_the_first_stage_asks_for_no_second_model(cirr: Bench, tmp_path: Path) -> None:
    assert resolve_inputs(cirr.settings(tmp_path, until="encode", stage2=None)).stage2 is None
    with pytest.raises(UsageError, match="needs --stage2"):
        resolve_inputs(cirr.settings(tmp_path, until="rerank", stage2=None))


def test_a_run_that_ends_with_stage_1_asks_for_no_precision_of_stage_2(
    cirr: Bench, tmp_path: Path
) -> None:
    resolve_inputs(cirr.settings(tmp_path, until="retrieve", stage2_precision="tf32"))
    with pytest.raises(UsageError, match="tf32 is not for the device cpu"):
        resolve_inputs(cirr.settings(tmp_path, until="rerank", stage2_precision="tf32"))


# --- stage 1 alone


def test_stage_1_alone_has_its_numbers_and_none_of_stage_2(
    filtered: Run, cirr_run: Finished
) -> None:
    both = cirr_run.run.evaluated.read("metrics").to_pylist()
    expected = [row for row in both if row["stage"] == "stage1"]
    assert filtered.evaluated.read("metrics").to_pylist() == expected
    assert {"recall", "recall_subset", "coverage", "mrr", "cirr_average"} == {
        row["metric"] for row in expected
    }
    assert filtered.evaluated.run_id != cirr_run.run.run_id


@pytest.mark.parametrize("view", ["recall", "mrr", "mean_average_precision", "coverage"])
def test_sql_recomputes_stage_1_and_invents_nothing(
    filtered: Run, cirr_run: Finished, view: str
) -> None:
    sql = f"SELECT * EXCLUDE run_id FROM {view} ORDER BY ALL"
    alone, both = rows(filtered.catalog, sql), rows(cirr_run.run.catalog, sql)
    assert alone
    if view == "mean_average_precision":
        both = [row for row in both if row["stage"] == "stage1"]
    both = [row | {name: None for name in ("stage2", "gain") if name in row} for row in both]
    assert len(alone) == len(both)
    for mine, theirs in zip(alone, both, strict=True):  # sums in any order
        assert mine == pytest.approx(theirs, abs=1e-12)


def test_the_catalog_says_what_was_not_run(filtered: Run, cirr_run: Finished) -> None:
    (run,) = rows(filtered.catalog, "SELECT stage2_sha256, precision, prior FROM runs")
    assert set(run.values()) == {None}
    assert rows(filtered.catalog, "SELECT * FROM rankings") == []
    sql = "SELECT query_id, pool, stage1_rank, is_candidate FROM rank_movement ORDER BY ALL"
    assert rows(filtered.catalog, sql) == rows(cirr_run.run.catalog, sql)
    moved = "SELECT * FROM rank_movement WHERE stage2_rank IS NOT NULL OR places_gained IS NOT NULL"
    assert rows(filtered.catalog, moved) == []
    failed = rows(filtered.catalog, "SELECT query_id, pool FROM failures ORDER BY ALL")
    first = "SELECT query_id, pool FROM rank_movement WHERE coalesce(stage1_rank, 2) > 1"
    assert failed == rows(cirr_run.run.catalog, f"{first} ORDER BY ALL")


def test_page_and_terminal_show_stage_1_alone(
    filtered: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    page = filtered.report.read_text()
    assert "stage 1 alone, nothing was re-ranked" in page
    assert ">stage 2<" not in page, "no number of it"
    numbers = json.loads((filtered.report.parent / "metrics.json").read_text())
    assert {row["stage"] for row in numbers["metrics"]} == {"stage1"}
    print_run(filtered, Console(width=200))
    told = capsys.readouterr().out
    assert "Recall of stage 1 in %" in told
    assert "coverage@6" in told
    assert "stage 2" not in told
    assert str(filtered.artifacts["retrieve"].folder) in told
    assert all("stage2" not in row for row in run_summary(filtered)["recall"])


def test_an_export_of_stage_1_alone_has_its_order_and_no_other(
    filtered: Run, cirr_run: Finished, tmp_path: Path
) -> None:
    store = filtered.evaluated.store
    with pytest.raises(PreflightError, match="no order of stage 2"):
        export(store, "jsonl", folder=tmp_path)
    (alone,) = export(store, "trec", stage="stage1", folder=tmp_path / "1").files[:1]
    other = cirr_run.run.evaluated.store
    (both,) = export(other, "trec", stage="stage1", folder=tmp_path / "2").files[:1]
    assert [line.split()[:5] for line in alone.read_text().splitlines()] == [
        line.split()[:5] for line in both.read_text().splitlines()
    ]


def test_files_to_take_away_have_stage_1s_order(fiq: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    shutil.copytree(fiq.root / "images", folder)
    names = sorted(path.name for path in folder.iterdir())
    (folder / "queries.csv").write_text(f"reference,text\n{names[0]},red\n{names[1]},longer\n")
    own: dict[str, Any] = {"dataset": "own", "data_root": folder, "categories": ()}
    run = fiq.run(tmp_path / "store", **own, until="retrieve", k="all")
    lines = [json.loads(line) for line in run.ranked[0].read_text().splitlines()]
    assert [line["rank"] for line in lines] == [line["stage1_rank"] for line in lines]
    assert len(lines) == 2 * (len(names) - 1)
    assert "stage2_score" not in lines[0]


# --- the whole gallery


def test_all_is_the_largest_gallerys_size(
    fiq: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Galleries have 14 and 15 images; every usable one but the reference is a candidate, and
    nobody is warned."""
    protocol = "fiq-original-removed"
    plan = make_plan(fiq.settings(tmp_path, k="all", protocol=protocol), started=0)
    run = fiq.run(tmp_path, k="all", protocol=protocol)
    found = run.artifacts["retrieve"].read("candidates")
    assert "larger than the gallery" not in caplog.text
    assert run.evaluated.setting("k") == FIQ_IMAGES + 1
    planned = {one.stage: one.effort.pairs for one in plan.stages}
    assert planned["retrieve"] == planned["rerank"] == found.num_rows
    again = fiq.run(tmp_path, k=FIQ_IMAGES + 1, protocol=protocol)
    assert (again.made, again.run_id) == ((), run.run_id)
    missed = "SELECT * FROM rank_movement WHERE NOT is_candidate"
    assert rows(run.catalog, missed) == []


def test_all_of_a_gallery_is_not_found_by_lists(fiq: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot give all of a gallery"):
        resolve_inputs(fiq.settings(tmp_path, k="all", index="ivf"))
