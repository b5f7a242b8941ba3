"""The same composition under Prefect: a real (temporary) server, few runs."""

import inspect
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import httpx
import pytest
import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.worker import EventsWorker
from prefect.testing.utilities import prefect_test_harness
from pydantic import BaseModel

from cir_core.datasets.registry import DATASETS
from cir_core.errors import PreflightError, ProblemsFound
from flows.ablation.declaration import faults_of, read_declaration
from flows.ablation_settings import AblationSettings
from flows.doors.deployments import (
    cir_ablation,
    cir_pipeline,
    cir_training,
    run_flow,
    run_training_flow,
)
from flows.drift import InputsChanged
from flows.engines.choice import PREFECT_DEFAULTS
from flows.engines.observed import observe
from flows.settings import Settings
from flows.training_settings import TrainingSettings
from storage.catalog import query
from storage.models.folders import model_sha256
from tasks.stages.evaluate import Evaluate
from tests.support.processes import children
from tests.support.small_benchmarks import Finished
from tests.support.workshop import Workshop

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    with prefect_test_harness(server_startup_timeout=180):
        yield


def rankings(catalog: Path) -> list[tuple[Any, ...]]:
    return query(catalog, "SELECT * FROM rankings ORDER BY ALL")[1]


def lines_shown(client: SyncPrefectClient, last: str) -> list[dict[str, Any]]:
    """The log on Prefect's pages, once it has the last line: it is sent every few seconds."""
    limit = time.monotonic() + 30
    while True:
        told: list[dict[str, Any]] = client.request("POST", "/logs/filter", json={}).json()
        if any(last in line["message"] for line in told):
            return told
        assert time.monotonic() < limit, told
        time.sleep(0.2)


@pytest.mark.usefixtures("prefect_server")
def test_prefect_makes_what_the_plain_engine_makes(fiq_run: Finished, tmp_path: Path) -> None:
    settings = fiq_run.bench.settings(tmp_path / "store", engine="prefect", workers=1)
    first = run_flow(settings)
    assert rankings(first.catalog) == rankings(fiq_run.run.catalog)
    assert first.run_id == fiq_run.run.run_id
    of_work = "SELECT stage, sittings, recorded, images, queries, pairs, gflop FROM costs"
    assert query(first.catalog, of_work) == query(fiq_run.run.catalog, of_work)
    assert run_flow(settings).made == ()
    with get_client(sync_client=True) as client:
        artifacts = {one.key: str(one.data) for one in client.read_artifacts()}
        shown = client.read_flow_runs()
        told = lines_shown(client, str(first.report.absolute()))
    assert "R@10" in artifacts["recall-fiq-val"]
    assert str(first.report.absolute()) in artifacts["report-fiq-val"]
    assert {one.name for one in shown} == {"fiq-val"}
    assert {*shown[0].tags} == {"fiq", "fiq-original-kept", f"k={settings.k}"}
    of_tasks = [line for line in told if line["name"] == "tasks.stages.ingest"]
    assert of_tasks
    assert all(line["task_run_id"] for line in of_tasks)


@pytest.mark.usefixtures("prefect_server")
def test_inputs_that_changed_fail_the_flow_after_the_results(
    fiq_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_changed(*_arguments: object) -> tuple[str, ...]:
        return ("data/a.png",)

    monkeypatch.setattr("flows.run.find_changed", find_changed)
    with pytest.raises(InputsChanged) as told:
        run_flow(fiq_run.bench.settings(fiq_run.store, engine="prefect"))
    assert told.value.run.run_id == fiq_run.run.run_id
    assert told.value.run.report.is_file()


def deployments() -> list[dict[str, Any]]:
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    found: list[dict[str, Any]] = content["deployments"]
    return found


def runs() -> list[dict[str, Any]]:
    return [one for one in deployments() if one["entrypoint"].endswith(".cir_pipeline")]


def trainings() -> list[dict[str, Any]]:
    return [one for one in deployments() if one["entrypoint"].endswith(".cir_training")]


def test_every_dataset_has_one_deployment() -> None:
    assert [deployment["name"] for deployment in runs()] == list(DATASETS)


def test_every_training_has_one_deployment() -> None:
    assert [one["parameters"]["stage"] for one in trainings()] == ["pretrain", "stage1", "stage2"]
    for one in trainings():
        assert one["parameters"].keys() <= inspect.signature(cir_training.fn).parameters.keys()


def test_an_ablation_has_one_deployment_of_a_file_that_is_there() -> None:
    (one,) = [one for one in deployments() if one["entrypoint"].endswith(".cir_ablation")]
    assert one["parameters"].keys() <= inspect.signature(cir_ablation.fn).parameters.keys()
    assert faults_of(read_declaration(ROOT / one["parameters"]["config"])) == []


@pytest.mark.usefixtures("prefect_server")
def test_prefect_trains_what_the_plain_engine_trains(workshop: Workshop) -> None:
    """Validation included, whose tasks run inside the training's."""
    workshop.train("pretrain")
    plain = workshop.train("stage1")
    observed = run_training_flow(workshop.settings("stage1", "observed"))
    assert model_sha256(Path(observed)) == model_sha256(plain)


@pytest.mark.parametrize("deployment", deployments(), ids=lambda one: str(one["name"]))
def test_a_deployment_sends_no_telemetry(deployment: dict[str, Any]) -> None:
    assert deployment["work_pool"]["job_variables"]["env"] == PREFECT_DEFAULTS


def test_a_flow_runs_where_its_worker_was_started() -> None:
    """Elsewhere a relative store would lie in a temporary folder and vanish with it."""
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (step,) = content["pull"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PWD }}"}}


@pytest.mark.parametrize("deployment", runs(), ids=lambda one: str(one["name"]))
def test_a_deployment_runs_the_flow_with_parameters_it_has(deployment: dict[str, Any]) -> None:
    assert deployment["entrypoint"] == "flows.doors.deployments.cir_pipeline"
    assert deployment["parameters"]["dataset"] == deployment["name"]
    assert deployment["parameters"].keys() <= inspect.signature(cir_pipeline.fn).parameters.keys()


# --- the form of a flow


@pytest.mark.parametrize(
    ("flow", "settings", "without"),
    [
        (cir_pipeline, Settings, {"engine"}),
        (cir_training, TrainingSettings, set()),
        (cir_ablation, AblationSettings, set()),
    ],
)
def test_a_form_has_every_setting_with_its_choices_and_a_description(
    flow: Flow[..., Any], settings: type[BaseModel], without: set[str]
) -> None:
    form = flow.parameters.properties
    assert form.keys() == settings.model_fields.keys() - without
    for name, parameter in form.items():
        assert parameter["description"], name
        annotation = settings.model_fields[name].annotation
        if get_origin(annotation) is Literal:
            assert parameter["enum"] == list(get_args(annotation))
    required = [name for name, one in settings.model_fields.items() if one.is_required()]
    assert flow.parameters.required == required


def test_choices_and_words_for_defaults_are_in_the_form() -> None:
    form = cir_pipeline.parameters.properties
    assert form["split"]["enum"] == ["train", "val", "test", "selection"]
    assert form["split"]["default"] == "val"
    assert form["k"]["description"] == (
        "Candidates per query: a number, all of its gallery, or auto: as many as it needs, "
        "calibrated on labelled queries. Default: the dataset's."
    )
    assert form["store"]["default"] == "cir-store"


# --- the work counts, whatever Prefect does


def flow_that_fails(error: Exception, *, before: bool) -> Callable[[Any], Any]:
    """In place of Prefect: it fails before the work, or when all is done."""

    def as_flow(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(**values: Any) -> None:
            if before:
                raise error
            try:
                work(**values)
            finally:
                raise error

        return run

    return as_flow


def work_that_ends(**values: Any) -> dict[str, Any]:
    return values


def work_that_fails(**_values: Any) -> None:
    raise ProblemsFound("3 images cannot be used")


def work_that_is_interrupted(**_values: Any) -> None:
    raise SystemExit(130)


GONE = httpx.ConnectError("All connection attempts failed")


@pytest.fixture
def logging_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)  # to be restored


@pytest.mark.usefixtures("logging_errors_are_raised")
class TestObserve:
    def test_a_server_that_is_lost_costs_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        assert observe(flow_that_fails(GONE, before=False), work_that_ends, {"k": 3}) == {"k": 3}
        assert "All connection attempts failed" in caplog.text

    def test_what_the_work_raises_is_raised(self) -> None:
        with pytest.raises(ProblemsFound):
            observe(flow_that_fails(GONE, before=False), work_that_fails, {})
        with pytest.raises(SystemExit) as caught:
            observe(flow_that_fails(GONE, before=False), work_that_is_interrupted, {})
        assert caught.value.code == 130

    def test_a_flow_run_that_is_refused_is_told(self) -> None:
        with pytest.raises(PreflightError, match="All connection attempts failed"):
            observe(flow_that_fails(GONE, before=True), work_that_ends, {})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its open sockets
@pytest.mark.usefixtures("prefect_server", "logging_errors_are_raised")
def test_a_run_ends_well_though_its_server_is_killed(
    fiq_run: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And soon, where Prefect by itself would wait 8 s for each of its last events: a minute in
    all. The last test of this server."""
    monkeypatch.setattr("flows.engines.observed.PATIENCE", 0.5)

    evaluate = Evaluate.work

    def evaluate_alone(stage: Evaluate, shards: Any) -> Any:
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        return evaluate(stage, shards)

    monkeypatch.setattr(Evaluate, "work", evaluate_alone)
    run = run_flow(fiq_run.bench.settings(tmp_path / "store", engine="prefect", workers=0))
    assert rankings(run.catalog) == rankings(fiq_run.run.catalog)
    assert run.report.is_file()
    assert "evaluate" in run.made
    assert "Prefect's server is lost (Connection refused): going on without it" in caplog.text
    assert "Prefect could not note how the run ended" in caplog.text
    started = time.monotonic()
    EventsWorker.drain_all()  # as Prefect does when a process ends
    assert time.monotonic() - started < 20
