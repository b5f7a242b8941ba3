"""What the deployments' forms and ``prefect.yaml`` say, without a server."""

import inspect
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from prefect import Flow
from pydantic import BaseModel

from cir_core.datasets.registry import DATASETS
from flows.ablation.declaration import faults_of, read_declaration
from flows.ablation_settings import AblationSettings
from flows.about import settings_of
from flows.comparison_settings import ComparisonSettings
from flows.doors.deployments import RUNS_OF, cir_ablation, cir_compare, cir_pipeline, cir_training
from flows.engines.choice import PREFECT_DEFAULTS
from flows.settings import Settings
from flows.training_settings import TrainingSettings

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("deployment", deployments(), ids=lambda one: str(one["name"]))
def test_a_deployment_sends_no_telemetry(deployment: dict[str, Any]) -> None:
    assert deployment["work_pool"]["job_variables"]["env"] == PREFECT_DEFAULTS


def test_a_flow_runs_where_its_worker_was_started() -> None:
    """And not where somebody deployed it, as by an environment variable in braces, which is read
    then. (That it does is seen by test_prefect_nights.)"""
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    ask, go = content["pull"]
    assert ask["prefect.deployments.steps.run_shell_script"]["script"] == "printenv PWD"
    assert go["prefect.deployments.steps.set_working_directory"] == {
        "directory": "{{ worker.stdout }}"
    }


@pytest.mark.parametrize("deployment", runs(), ids=lambda one: str(one["name"]))
def test_a_deployment_runs_the_flow_with_parameters_it_has(deployment: dict[str, Any]) -> None:
    assert deployment["entrypoint"] == "flows.doors.deployments.cir_pipeline"
    assert deployment["parameters"]["dataset"] == deployment["name"]
    assert deployment["parameters"].keys() <= inspect.signature(cir_pipeline.fn).parameters.keys()


# --- the form of a flow

FLOWS: dict[Flow[..., Any], type[BaseModel]] = {
    cir_pipeline: Settings,
    cir_training: TrainingSettings,
    cir_ablation: AblationSettings,
    cir_compare: ComparisonSettings,
}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))
def test_a_form_has_every_setting_with_its_choices_and_a_description(
    flow: Flow[..., Any],
) -> None:
    settings, form = FLOWS[flow], flow.parameters.properties
    beside = RUNS_OF if flow is cir_compare else ()
    assert [*form] == [*(name for name in settings.model_fields if name != "engine"), *beside]
    required = [name for name, one in settings.model_fields.items() if one.is_required()]
    assert flow.parameters.required == required
    require_told(form, settings)
    if "data" in form:
        assert form["data"]["$ref"] == "#/definitions/Settings"
        require_told(flow.parameters.definitions["Settings"]["properties"], Settings)


def require_told(form: dict[str, dict[str, Any]], settings: type[BaseModel]) -> None:
    for one in settings_of(settings):
        if one.name not in form:
            continue
        told = form[one.name]
        assert told["title"] == one.name
        assert told["description"].startswith(one.about.help[:3])
        assert " -" not in told["description"], "there is no terminal"
        assert ("default" in told) != one.is_required
        if get_origin(annotation := settings.model_fields[one.name].annotation) is Literal:
            assert told["enum"] == list(get_args(annotation))


def test_choices_suggestions_and_words_for_defaults_are_in_the_form() -> None:
    form = cir_pipeline.parameters.properties
    assert form["split"]["enum"] == ["train", "val", "test", "selection"]
    assert form["split"]["default"] == "val"
    assert form["k"]["description"] == (
        "Candidates per query: a number, all of its gallery, or auto: as many as it needs, "
        "calibrated on labelled queries. Default: the dataset's."
    )
    assert form["store"]["default"] == "cir-store"
    assert form["dataset"]["examples"] == list(DATASETS)
    assert form["dataset"]["description"].endswith(f"Such as {', '.join(DATASETS)}.")
    assert {"fiq-original-kept", "cirr-removed-subset-scored"} <= {*form["protocol"]["examples"]}
