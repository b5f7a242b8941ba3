"""The pipeline as a Prefect flow; ``prefect.yaml`` has one deployment of it per dataset."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows.engine import Prefect
from flows.pipeline import Run, run_pipeline
from flows.settings import Settings, with_folder
from flows.terminal import recall_markdown
from flows.train import TrainingSettings, run_training


@flow(name="cir-pipeline", persist_result=False, validate_parameters=False)
def cir_pipeline(
    dataset: str = "demo",
    data_root: str | None = None,
    name: str | None = None,
    images: str | None = None,
    queries: str | None = None,
    gallery: str | None = None,
    split: str = "val",
    categories: tuple[str, ...] = (),
    stage1: str | None = None,
    stage2: str | None = None,
    protocol: str | None = None,
    k: int | None = None,
    index: str = "exact",
    nlist: int | None = None,
    nprobe: int | None = None,
    store: str = "cir-store",
    allow_missing: int = 0,
    device: str = "auto",
    batch: int = 32,
    workers: int | None = None,
    tokens: str = "auto",
    memory: int | str | None = None,
    precision: str = "fp32",
) -> Run:
    """From images and annotations to a published and reported run.

    Parameters are those of ``cir-pipeline run``, and are checked by the same settings. The recall
    table and a link to the report stay behind as Prefect artifacts.
    """
    values = with_folder(
        {
            "dataset": dataset,
            "data_root": data_root,
            "name": name,
            "images": images,
            "queries": queries,
            "gallery": gallery,
            "split": split,
            "categories": categories,
            "stage1": stage1,
            "stage2": stage2,
            "protocol": protocol,
            "k": k,
            "index": index,
            "nlist": nlist,
            "nprobe": nprobe,
            "store": store,
            "allow_missing": allow_missing,
            "device": device,
            "batch": batch,
            "workers": workers,
            "tokens": tokens,
            "memory": memory,
            "precision": precision,
        }
    )
    settings = Settings.model_validate(values)
    run = run_pipeline(settings, Prefect())
    key = f"{settings.dataset}-{settings.split}"
    create_markdown_artifact(recall_markdown(settings.store, run), key=f"recall-{key}")
    create_link_artifact(
        run.report.resolve().as_uri(), link_text="HTML report", key=f"report-{key}"
    )
    made = ", ".join(run.made) or "nothing: everything was there"
    get_run_logger().info("made %s; report: %s", made, run.report)
    return run


@flow(name="cir-training", persist_result=False, validate_parameters=False)
def cir_training(
    stage: str,
    out: str,
    recipe: str = "demo",
    base: str | None = None,
    stage1: str | None = None,
    validate_on: str | None = None,
    features: str = "cache",
    precision: str = "auto",
    micro_batch: int | None = None,
    data: dict[str, Any] | None = None,
) -> str:
    """Train one model; returns the folder of the best.

    Parameters are those of ``cir-pipeline train``; ``data`` holds those that a run has too
    (dataset, data_root, store, device and so on).
    """
    settings = TrainingSettings.model_validate(
        {
            "stage": stage,
            "out": out,
            "recipe": recipe,
            "base": base,
            "stage1": stage1,
            "validate_on": validate_on,
            "features": features,
            "precision": precision,
            "micro_batch": micro_batch,
            "data": data or {},
        }
    )
    return str(run_training(settings, Prefect()))


def run_training_flow(settings: TrainingSettings) -> str:
    """Train here and now, observed by the configured (or a temporary) Prefect API."""
    trained: str = cir_training(**settings.model_dump(mode="json"))
    return trained


def run_flow(settings: Settings) -> Run:
    """Run the flow here and now, observed by the configured (or a temporary) Prefect API."""
    parameters = settings.model_dump(mode="json", exclude={"engine"})
    run: Run = cir_pipeline(**parameters)
    return run
