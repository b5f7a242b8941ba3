"""What runs long, or at night, as Prefect flows; ``prefect.yaml`` has their deployments."""

import logging
import shlex
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from flows.ablation.run import Ablated, run_ablation
from flows.ablation_settings import AblationSettings
from flows.comparing import run_comparison
from flows.comparison_settings import ComparisonSettings
from flows.doors.parameters import parameters_of
from flows.drift import require_unchanged
from flows.engines.engine import Prefect
from flows.engines.observed import attempt, logs_shown, observe
from flows.inputs import resolve_inputs
from flows.origins import with_folder
from flows.run import Run, run_pipeline
from flows.settings import Settings, demo_root
from flows.train import run_training
from flows.training_settings import TrainingSettings
from flows.views.recall import recall_markdown
from storage.store import open_store

TABLE_KEY = "ablation"
COMPARISON_KEY = "comparison"

RUNS_OF = ("store", "data_root")
"""Settings of a run that say where a comparison's runs and images lie."""

PORT = 8000
"""On which the reader of a report serves it to a browser."""

as_pipeline = flow(
    name="cir-pipeline",
    flow_run_name="{dataset}-{split}",
    persist_result=False,
    validate_parameters=False,
    retries=0,
)
as_training = flow(
    name="cir-training",
    flow_run_name="{stage}-{recipe}",
    persist_result=False,
    validate_parameters=False,
    retries=0,
)
as_ablation = flow(
    name="cir-ablation",
    flow_run_name="{config}",
    persist_result=False,
    validate_parameters=False,
    retries=0,
)
as_comparison = flow(
    name="cir-compare",
    persist_result=False,
    validate_parameters=False,
    retries=0,
)
"""Settings check the parameters: a page sends a path, and sizes as text. A flow is not tried again,
whatever Prefect's settings say: what may pass by itself its tasks have tried already, and what
else failed, as for want of disk, needs somebody; the same command then goes on."""

_log = logging.getLogger(__name__)


@parameters_of(Settings, without=frozenset({"engine"}))
def pipeline(**values: Any) -> Run:
    """From images and annotations to a published and reported run, or until a stage before.

    Parameters are those of ``cir-pipeline run``, and are checked by the same settings. The recall
    table, and where the report is, stay behind as Prefect artifacts.
    """
    settings = Settings.model_validate(with_folder(values))
    with logs_shown():
        inputs = resolve_inputs(settings)
        attempt(lambda: _tag(inputs.dataset.name, inputs.protocol, f"k={inputs.k}"))
        run = run_pipeline(settings, Prefect())
        made = ", ".join(run.made) or "nothing: everything was there"
        end = run.report.absolute() if run.files else [*run.artifacts.values()][-1]
        _log.info("made %s; see %s", made, end)
        attempt(lambda: _show(settings, run))
        require_unchanged(run)
    return run


@parameters_of(TrainingSettings)
def training(**values: Any) -> str:
    """Train one model; returns the folder of the best.

    Parameters are those of ``cir-pipeline train``.
    """
    settings = TrainingSettings.model_validate(values)
    with logs_shown():
        attempt(lambda: _tag(settings.data.dataset, settings.stage, f"recipe={settings.recipe}"))
        return str(run_training(settings, Prefect()))


@parameters_of(AblationSettings)
def ablation(**values: Any) -> Ablated:
    """Train, run and compare the variants that a file declares.

    Parameters are those of ``cir-pipeline ablate``; what ``data`` sets is over the file's. The
    table stays behind as a Prefect artifact.
    """
    settings = AblationSettings.model_validate(values)
    with logs_shown():
        made = run_ablation(settings, Prefect())
        table = next(file for file in made.files if file.suffix == ".md")
        attempt(lambda: create_markdown_artifact(table.read_text(encoding="utf-8"), key=TABLE_KEY))
    return made


@parameters_of(ComparisonSettings, beside=RUNS_OF)
def comparison(**values: Any) -> str:
    """Whether runs differ, by how much, and on which queries; returns the page's path.

    Parameters are those of ``cir-pipeline compare``. The table, and where the page is, stay behind
    as a Prefect artifact.
    """
    where = Settings.model_validate({name: values.pop(name) for name in RUNS_OF if name in values})
    settings = ComparisonSettings.model_validate(values)
    with logs_shown():
        compare = partial(run_comparison, settings, open_store(where.store), _roots(where))
        made = Prefect().observe("compare", compare)
        page = made.files[0].absolute()
        told = f"{made.texts['comparison.md']}\n\n{report_markdown(page)}"
        attempt(lambda: create_markdown_artifact(told, key=COMPARISON_KEY))
        _log.info("compared; see %s", page)
    return str(page)


def _roots(where: Settings) -> Callable[[str], Path | None]:
    """Of the images of a dataset: what is said, and the demo's, which lie below the store."""

    def root_of(dataset: str) -> Path | None:
        return where.data_root or (demo_root(where.store) if dataset == "demo" else None)

    return root_of


cir_pipeline = as_pipeline(pipeline)
cir_compare = as_comparison(comparison)
cir_training = as_training(training)
cir_ablation = as_ablation(ablation)


def run_training_flow(settings: TrainingSettings) -> str:
    """Train here and now, observed by Prefect; raises what the training does, and PreflightError
    when Prefect does not let it begin."""
    return observe(as_training, training, settings.model_dump(mode="json"))


def run_ablation_flow(settings: AblationSettings) -> Ablated:
    """Ablate here and now, observed by Prefect; raises what the ablation does, and PreflightError
    when Prefect does not let it begin."""
    return observe(as_ablation, ablation, _as_set(settings))


def _as_set(settings: AblationSettings) -> dict[str, Any]:
    """Only what is set: the file stands in for the rest."""
    return settings.model_dump(mode="json", exclude_unset=True)


def run_flow(settings: Settings) -> Run:
    """Run here and now, observed by Prefect; raises what the pipeline does, and PreflightError when
    Prefect does not let it begin."""
    parameters = settings.model_dump(mode="json", exclude={"engine"})
    return observe(as_pipeline, pipeline, parameters)


def _tag(*tags: str) -> None:
    """Beside the tags that the flow run has already."""
    context = FlowRunContext.get()
    if context and context.flow_run:
        with get_client(sync_client=True) as client:
            client.update_flow_run(context.flow_run.id, tags={*context.flow_run.tags, *tags})


def _show(settings: Settings, run: Run) -> None:
    key = f"{settings.dataset}-{settings.split}"
    if run.is_evaluated:
        create_markdown_artifact(recall_markdown(run), key=f"recall-{key}")
    if run.files:
        create_markdown_artifact(report_markdown(run.report), key=f"report-{key}")


def report_markdown(report: Path) -> str:
    """Where a report is and how to open it: no browser follows a link from a page to a file."""
    host, path = socket.gethostname(), report.absolute()
    folder = shlex.quote(str(path.parent))
    return "\n".join(
        [
            f"The HTML page is on `{host}`:",
            f"```\n{path}\n```",
            "To open it from this page, run there:",
            f"```\npython -m http.server {PORT} --bind 127.0.0.1 --directory {folder}\n```",
            f"then follow <http://127.0.0.1:{PORT}/{path.name}>. From another machine, first",
            f"```\nssh -L {PORT}:127.0.0.1:{PORT} {host}\n```",
        ]
    )
