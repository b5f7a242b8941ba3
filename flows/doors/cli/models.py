"""``convert`` and ``train``: where models come from."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.doors.cli.completion import recipe_names
from flows.doors.cli.options import (
    AllowMissing,
    Batch,
    DataRoot,
    Dataset,
    Device,
    Engine,
    Gallery,
    Images,
    Queries,
    Store,
    Workers,
)
from flows.engines.choice import prepare_prefect, wants_prefect
from flows.views.streams import put, say


def convert(
    source: Annotated[
        Path,
        typer.Argument(help="A published .pt file, a Hugging Face BLIP folder, or a model folder."),
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to write, or .pt file.")],
    to: Annotated[
        Literal["folder", "published"],
        typer.Option(help="A model folder, or the published .pt that the authors' code loads."),
    ] = "folder",
    half: Annotated[
        bool, typer.Option("--half", help="Keep a folder's weights in fp16, rounded.")
    ] = False,
) -> None:
    """Convert a published checkpoint, or back, strictly: every tensor is mapped or named."""
    from cir_core.errors import UsageError
    from tasks.models import convert as conversion

    if to == "folder":
        made = conversion.convert(source, out, half=half)
    elif half:
        raise UsageError("published checkpoints hold fp32", remedy="leave --half out")
    else:
        made = conversion.convert_back(source, out)
    say(f"{made.kind} model with {made.parameters / 1e6:.1f} M parameters")
    for word, names in (("dropped", made.dropped), ("made anew", made.added)):
        if names:
            say(f"{word}: {', '.join(names)}")
    put(str(made.path))


def train(
    stage: Annotated[
        Literal["pretrain", "stage1", "stage2"], typer.Argument(help="What to train.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write: models best and last, and what resumes.")
    ],
    dataset: Dataset = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--config",
            autocompletion=recipe_names,
            help="demo, small, fiq, cirr, or a .toml file that changes one.",
        ),
    ] = "demo",
    data_root: DataRoot = None,
    queries: Queries = None,
    images: Images = None,
    gallery: Gallery = None,
    base: Annotated[
        Path | None, typer.Option(help="Pre-trained model that stage 1 and 2 start from.")
    ] = None,
    stage1: Annotated[
        Path | None, typer.Option(help="Finished stage 1, whose z_t stage 2 reads.")
    ] = None,
    validate_on: Annotated[
        str | None,
        typer.Option(
            help="In the end, measure the best model on a split, or own data's file of queries.",
            show_default="nothing",
        ),
    ] = None,
    features: Annotated[
        Literal["cache", "recompute"],
        typer.Option(
            help="cache: image tokens are kept in the store; recompute: a ViT pass every time."
        ),
    ] = "cache",
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="auto: bf16 on a GPU that has it.")
    ] = "auto",
    micro_batch: Annotated[
        int | None,
        typer.Option(help="Rows of a batch at a time; same result.", show_default="all", min=1),
    ] = None,
    store: Store = None,
    allow_missing: AllowMissing = None,
    device: Device = None,
    batch: Batch = None,
    workers: Workers = None,
    engine: Engine = None,
) -> None:
    """Train the base model, stage 1 or stage 2; interrupted, the same command goes on.

    Several GPUs: `accelerate launch .venv/bin/cir-pipeline train ...`.
    """
    from flows.train import parse_training, run_training

    flags = {
        "dataset": dataset,
        "data_root": data_root,
        "queries": queries,
        "images": images,
        "gallery": gallery,
        "store": store,
        "allow_missing": allow_missing,
        "device": device,
        "batch": batch,
        "workers": workers,
        "engine": engine,
    }
    settings = parse_training(
        flags,
        os.environ,
        stage=stage,
        recipe=recipe,
        out=out,
        base=base,
        stage1=stage1,
        validate_on=validate_on,
        features=features,
        precision=precision,
        micro_batch=micro_batch,
    )
    if wants_prefect(settings.data.engine):
        prepare_prefect(settings.data.store)
        from flows.doors.deployments import run_training_flow

        put(str(run_training_flow(settings)))
        return
    from flows.engines.engine import InProcess

    put(str(run_training(settings, InProcess())))
