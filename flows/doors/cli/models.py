"""``convert`` and ``train``: where models come from."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.doors.cli.options import Json, flags_of, options_of, takes
from flows.engines.choice import prepare_prefect, wants_prefect
from flows.training_settings import TrainingSettings
from flows.views.streams import put, put_json, say
from storage.store import open_store

DATA = (
    "dataset", "data_root", "queries", "images", "gallery",
    "store", "wait", "allow_missing", "device", "batch", "workers", "engine",
)  # fmt: skip
"""Settings of a run that a training takes from the terminal: those of its data and its machine."""


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="A published .pt file, a Hugging Face folder (BLIP, CLIP, SigLIP, "
            "Qwen-VL), or a model folder."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to write, or .pt file.")],
    to: Annotated[
        Literal["folder", "published"],
        typer.Option(help="A model folder, or the published .pt that the authors' code loads."),
    ] = "folder",
    half: Annotated[
        bool, typer.Option("--half", help="Keep a folder's weights in fp16, rounded.")
    ] = False,
    prompt: Annotated[
        Literal["qwen3-vl-reranker", "lamra", "candidate-first"] | None,
        typer.Option(
            help="How a vision-language model is asked; its architecture's usual form if left out."
        ),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(help="The converted CLIP that SEARLE's or LinCIR's .pt belongs to."),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="A BLIP base, below whose text encoder the image tower of a converted CLIP or "
            "SigLIP is put: a base for trainings."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a published checkpoint, or back.

    Strictly: every tensor is mapped, or named as dropped or made anew.
    """
    from dataclasses import asdict

    from cir_core.errors import UsageError
    from tasks.models import convert as conversion

    if text is not None:
        if prompt or clip is not None or to != "folder":
            raise UsageError(
                "--text makes a base of two models", remedy="leave --prompt, --clip and --to out"
            )
        from tasks.models.graft import graft

        made = graft(source, text, out, half=half)
    elif to == "folder":
        made = conversion.convert(source, out, half=half, prompt=prompt, clip=clip)
    elif half:
        raise UsageError("published checkpoints hold fp32", remedy="leave --half out")
    elif clip is not None:
        raise UsageError("only textual inversion needs a CLIP beside it", remedy="leave --clip out")
    elif prompt:
        raise UsageError("published checkpoints are asked nothing", remedy="leave --prompt out")
    else:
        made = conversion.convert_back(source, out)
    say(f"{made.kind} model with {made.parameters / 1e6:.1f} M parameters")
    for word, names in (("dropped", made.dropped), ("made anew", made.added)):
        if names:
            say(f"{word}: {', '.join(names)}")
    if as_json:
        put_json(asdict(made))
    else:
        put(str(made.path))


@takes(options_of(TrainingSettings), flags_of(*DATA))
def train(as_json: Json = False, **values: Any) -> None:
    """Train the base model, stage 1 or stage 2.

    Interrupted, the same command goes on. Several GPUs: `accelerate launch .venv/bin/cir-pipeline
    train ...`.
    """
    from flows.origins import parse_training

    flags = {name: values.pop(name) for name in DATA}
    settings = parse_training(flags, os.environ, **values)
    best = _train(settings)
    from flows.views.trainings import say_training, training_summary

    say_training(settings.out)
    if as_json:
        put_json(training_summary(settings.out))
    else:
        put(str(best))


def _train(settings: TrainingSettings) -> Path:
    if wants_prefect(settings.data.engine):
        prepare_prefect(open_store(settings.data.store))
        from flows.doors.deployments import run_training_flow

        return Path(run_training_flow(settings))
    from flows.engines.engine import InProcess
    from flows.train import run_training

    return run_training(settings, InProcess())
