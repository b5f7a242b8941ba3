"""The same composition under Prefect: a real (temporary) server, few runs."""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from cir_core.datasets.registry import DATASETS
from flows.deployments import cir_pipeline, cir_training, run_flow, run_training_flow
from storage.catalog import query
from storage.checkpoints import model_sha256
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


@pytest.mark.usefixtures("prefect_server")
def test_prefect_makes_what_the_plain_engine_makes(fiq_run: Finished, tmp_path: Path) -> None:
    settings = fiq_run.bench.settings(tmp_path / "store", engine="prefect", workers=1)
    first = run_flow(settings)
    assert rankings(first.catalog) == rankings(fiq_run.run.catalog)
    assert first.run_id == fiq_run.run.run_id
    assert run_flow(settings).made == ()
    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts()}
    assert {"recall-fiq-val", "report-fiq-val"} <= keys


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


@pytest.mark.usefixtures("prefect_server")
def test_prefect_trains_what_the_plain_engine_trains(workshop: Workshop) -> None:
    """Validation included, whose tasks run inside the training's."""
    workshop.train("pretrain")
    plain = workshop.train("stage1")
    observed = run_training_flow(workshop.settings("stage1", "observed"))
    assert model_sha256(Path(observed)) == model_sha256(plain)


def test_a_flow_runs_where_its_worker_was_started() -> None:
    """Elsewhere a relative store would lie in a temporary folder and vanish with it."""
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (step,) = content["pull"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PWD }}"}}


@pytest.mark.parametrize("deployment", runs(), ids=lambda one: str(one["name"]))
def test_a_deployment_runs_the_flow_with_parameters_it_has(deployment: dict[str, Any]) -> None:
    assert deployment["entrypoint"] == "flows.deployments.cir_pipeline"
    assert deployment["parameters"]["dataset"] == deployment["name"]
    assert deployment["parameters"].keys() <= inspect.signature(cir_pipeline.fn).parameters.keys()
