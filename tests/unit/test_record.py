"""What a run leaves for programs and to be cited: valid by its schema, whole, and no markup of
anybody else."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema import Draft202012Validator

from flows.command import command_of
from flows.doors.cli.app import app
from flows.origins import resolve
from flows.settings import Settings
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.results.record.caveats import caveats_of
from tasks.results.record.files import RECORD_FILES, known_command
from tasks.results.record.numbers import schema_text
from tasks.results.record.run_card import card
from tasks.results.report.report import Report
from tasks.stages.output import folder_of
from tests.support.small_benchmarks import Bench, Finished

SCHEMA = json.loads(schema_text())


def faults(document: Mapping[str, Any]) -> list[str]:
    validator = Draft202012Validator(SCHEMA)
    return [f"{list(one.path)}: {one.message}" for one in validator.iter_errors(document)]


def numbers_of(finished: Finished) -> dict[str, Any]:
    content = finished.run.report.with_name("metrics.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(content)
    return document


@pytest.fixture
def document(fiq_run: Finished) -> dict[str, Any]:
    return numbers_of(fiq_run)


def test_the_schema_is_one_and_lies_beside_the_numbers(fiq_run: Finished) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    folder = fiq_run.run.report.parent
    assert {path.name for path in folder.iterdir()} >= {*RECORD_FILES}
    named = numbers_of(fiq_run)["$schema"]
    assert (folder / named).read_text(encoding="utf-8") == schema_text()


def test_numbers_are_valid_and_complete(fiq_run: Finished, cirr_run: Finished) -> None:
    for finished in (fiq_run, cirr_run):
        document, evaluated = numbers_of(finished), finished.run.evaluated
        assert faults(document) == []
        assert document["run"]["run_id"] == finished.run.run_id
        assert len(document["metrics"]) == evaluated.read("metrics").num_rows
        assert len(document["costs"]) == len(document["artifacts"])
        assert all(one["made_with"]["torch"] for one in document["artifacts"])
        assert document["artifacts"][-1]["content"] == evaluated.content
        assert {row["stage"] for row in document["metrics"]} == {"stage1", "stage2", "gain"}


def test_a_run_of_stage_1_alone_is_valid_and_told_as_such(fiq: Bench, tmp_path: Path) -> None:
    run = fiq.run(tmp_path / "store", until="retrieve", run_name="alone", tags=("a", "b"))
    text = run.report.with_name("metrics.json").read_text(encoding="utf-8")
    document = json.loads(text)
    assert faults(document) == []
    assert document["label"] == {"name": "alone", "tags": ["a", "b"]}
    assert document["gain_per_petaflop"] == []
    told = run.report.with_name("run-card.md").read_text(encoding="utf-8")
    assert "# Run card: alone" in told
    assert "Nothing was re-ranked: every number is stage 1's." in told
    assert "| stage 2 |" not in told


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("run", "run_id"), "x"),
        (("metrics", 0, "stage"), "stage3"),
        (("metrics", 0, "value"), 48.1),
        (("metrics", 0, "metric"), "conditional_recall"),
        (("galleries", 0, "sha256"), "ab"),
        (("costs", 0, "seconds"), "fast"),
        (("schema_version",), 2),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    document: dict[str, Any], path: tuple[Any, ...], value: Any
) -> None:
    *folders, last = path
    inner: Any = document
    for name in folders:
        inner = inner[name]
    inner[last] = value
    assert len(faults(document)) == 1
    del inner[last]
    assert len(faults(document)) == 1, "it is required"


# --- the card


def metadata(text: str) -> Any:
    _, front, _ = text.split("---\n", 2)
    return yaml.safe_load(front)


def test_a_card_tells_what_a_hub_and_a_reader_ask(document: dict[str, Any]) -> None:
    text = card(document)
    (model,) = metadata(text)["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["revision"] == document["run"]["gallery_sha256"]
    (recall,) = [one for one in result["metrics"] if one["type"] == "recall_at_10"]
    (row,) = [
        one
        for one in document["metrics"]
        if (one["category"], one["stage"], one["metric"], one["k"])
        == ("average", "stage2", "recall", 10)
    ]
    assert recall["value"] == round(100 * row["value"], 2)
    for sha256 in (*document["facts"]["models"].values(), document["galleries"][0]["sha256"]):
        assert sha256 in text
    for expected in ("## Cost", "GFLOP", "check-run --expected expected.toml", "torch"):
        assert expected in text


HOSTILE = 'x|y\n# no\n---\n<script>"\\`*_[a](b)\u202e'


def test_hostile_names_are_no_markup(document: dict[str, Any]) -> None:
    document["label"] = {"name": HOSTILE, "tags": [HOSTILE]}
    for row in (*document["metrics"], *document["galleries"]):
        row["category"] = row["category"].replace("dress", HOSTILE)
    text = card(document)
    assert metadata(text)["model-index"][0]["name"] == HOSTILE
    body = text.split("---\n\n", 1)[1]
    assert "<script>" not in body
    assert "\n# no" not in body
    tables = [line for line in body.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables if "R@10" in line} == {5, 7}


def test_without_labels_nothing_is_measured(document: dict[str, Any]) -> None:
    document |= {"metrics": [], "gain_per_petaflop": []}
    document["caveats"] = caveats_of(document["run"], document)
    assert faults(document) == []
    text = card(document)
    assert metadata(text) == {"tags": ["composed-image-retrieval"]}
    assert "The queries have no labels: nothing is measured." in text


def test_costs_that_are_unknown_or_known_in_part_are_told(document: dict[str, Any]) -> None:
    rerank, rank = (
        next(row for row in document["costs"] if row["stage"] == stage)
        for stage in ("rerank", "rank")
    )
    rerank |= {"recorded": 0.5}
    rank |= dict.fromkeys(rank, None) | {"stage": "rank", "sittings": 0, "recorded": 0.0}
    document["caveats"] = caveats_of(document["run"], document)
    assert "What these stages took was not recorded: rank." in document["caveats"]
    text = card(document)
    assert f"≥ {rerank['pairs']:,}" in text
    assert "Together" not in text


def test_what_earlier_runs_paid_for_is_told(document: dict[str, Any]) -> None:
    assert not any("earlier runs" in told for told in document["caveats"])
    for row in document["costs"]:
        row["copied"] = {"rerank": 4000, "encode": 12}.get(row["stage"], 0)
    pairs, images = (
        next(row[unit] for row in document["costs"] if row["stage"] == stage)
        for stage, unit in (("rerank", "pairs"), ("encode", "images"))
    )
    document["caveats"] = caveats_of(document["run"], document)
    told = (
        "Taken from earlier runs, and what they cost is told there: 12 images of encode (beside "
        f"{images} computed), 4,000 pairs of rerank (beside {pairs} computed)."
    )
    assert told in document["caveats"]
    assert faults(document) == []


def test_caveats_of_each_kind(document: dict[str, Any]) -> None:
    run = document["run"] | {
        "gallery_missing": 2,
        "vector_index": "ivf",
        "first_stage": "candidates",
        "stage1_precision": "bf16",
        "precision": "tf32",
        "split": "selection",
        "late_fusion": 0.5,
        "late_fusion_scores": "raw",
        "late_fusion_fitted_on": None,
    }
    problems = [{"item": "a", "kind": "missing", "message": "b"}]
    told = " ".join(caveats_of(run, document | {"problems": problems}))
    for word in ("short: 2 of", "1 image or query", "approximate", "selection", "file"):
        assert word in told
    assert "Stage 1 computed in bf16" in told
    assert "Stage 2 computed in tf32" in told
    assert "0.5 x stage 1's (raw), the weight given" in told


# --- the command


def parsed(words: tuple[str, ...]) -> Settings:
    """As the terminal reads them."""
    group: Any = typer.main.get_command(app)
    _, command, _ = group.resolve_command(typer.Context(group), ["run"])
    with command.make_context("run", list(words[2:])) as context:
        flags = {name: value for name, value in context.params.items() if name != "as_json"}
    flags = {name: value or None if value == () else value for name, value in flags.items()}
    return resolve(flags, {}).settings


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"dataset": "fiq", "data_root": "/data", "stage1": "a b", "stage2": "~/c", "k": "all"},
        {"categories": ("dress", "shirt"), "protocol": "fiq-union-kept", "split": "test"},
        {"late_fusion": "fit", "late_fusion_scores": "raw", "precision": "bf16"},
        {"late_fusion": 0.25, "text_weight": 0.5, "index": "ivf", "nlist": 4, "nprobe": 2},
        {"dataset": "./own", "queries": "-q.csv", "name": "--name", "allow_missing": 3},
        {"candidates": "/c.trec", "until": "retrieve"},
        {"embeddings": "e"},
    ],
    ids=str,
)
def test_a_command_makes_the_same_run(values: dict[str, Any], tmp_path: Path) -> None:
    settings = resolve(values, {}).settings
    assert parsed(command_of(settings)) == settings


def test_a_command_leaves_out_where_and_how_fast(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"store": tmp_path, "device": "cpu", "batch": 7, "workers": 2, "run_name": "x"}
    )
    assert command_of(settings) == ("cir-pipeline", "run")
    home = Settings.model_validate({"stage1": Path.home() / "m"})
    assert command_of(home)[-2:] == ("--stage1", "~/m")


def test_a_page_that_is_made_anew_keeps_the_command(fiq_run: Finished, tmp_path: Path) -> None:
    shutil.copytree(fiq_run.store, tmp_path / "store")
    evaluated = Evaluated(LocalStore(tmp_path / "store"), fiq_run.run.evaluated.fingerprint)
    before = numbers_of(fiq_run)["command"]
    assert before[:2] == ["cir-pipeline", "run"]
    report = Report(evaluated, fiq_run.bench.root)
    report.write()
    numbers = report.files[0].with_name("metrics.json")
    assert json.loads(numbers.read_text(encoding="utf-8"))["command"] == before
    for damaged in ("{", "[]", '{"command": [1]}'):
        numbers.write_text(damaged, encoding="utf-8")
        assert known_command(evaluated.store, folder_of(evaluated)) == ()


def test_costs_stand_in_the_order_of_the_stages(document: dict[str, Any]) -> None:
    stages = [row["stage"] for row in document["costs"]]
    assert stages == [one["stage"] for one in document["artifacts"]]
