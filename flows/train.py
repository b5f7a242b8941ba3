"""Training, composed: which data, which recipe, which model comes from which, how it is judged."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from pydantic import ValidationError

from cir_core.datasets.selection import source_split
from cir_core.errors import CirError, UsageError
from cir_core.training.gradients import join_processes
from cir_core.training.presets import Preset
from cir_core.training.recipes import FusedRecipe, Stage1Recipe, Stage2Recipe
from flows.engines.engine import Engine
from flows.inputs import Inputs, resolve_inputs
from flows.judge import Stage1Judge, Stage2Judge
from flows.leasing import leased
from flows.machine import find_device, find_workers
from flows.own import complete, open_dataset
from flows.recipes import find_recipe
from flows.run import check_texts, ingest_split
from flows.settings import Settings, demo_root
from flows.training_settings import TrainingSettings, settings_of_data
from storage.lock import TRAINING, hold
from storage.sources.roots import require_root
from storage.store import open_store
from storage.views import Ingested, KeptTokens
from tasks.stages.render import render_demo
from tasks.stages.tokens import tokens_of
from tasks.training.model_card import add_to_card
from tasks.training.train import (
    Hardware,
    pretrain,
    require_beginning,
    train_stage1,
    train_stage2,
)

_log = logging.getLogger(__name__)

VALIDATION_FOLDER = "validation"
"""Below a training's output: the store of its validation runs, which SQL can ask."""


def run_training(settings: TrainingSettings, engine: Engine) -> Path:
    """Train one model; ``best`` and ``last`` below ``out`` hold it. The same call after a kill
    goes on where it was. Returns the best model's folder.

    Raises UsageError, listing everything at once, for an unknown recipe or dataset, or a model that
    is needed and not given, or has fewer layers than stage 2 merges from; StoreBusy when another
    training writes into ``out``; ProblemsFound for unusable images, and texts that are too long,
    beyond ``allow_missing``.
    """
    settings = settings.model_copy(update={"data": settings_of_data(settings.data)})
    preset = _check(settings)
    hardware = _hardware(settings)
    leads = join_processes(hardware.device).is_main_process
    with hold(TRAINING, settings.out) if leads else nullcontext():
        if settings.stage == "pretrain":
            _pretrain(settings, preset, hardware, engine)
        else:
            _train_fused(settings, preset, hardware, engine)
    return settings.out / "best"


def _pretrain(
    settings: TrainingSettings, preset: Preset, hardware: Hardware, engine: Engine
) -> None:
    data = complete(settings.data)
    root, dataset = data.data_root or demo_root(data.store), open_dataset(data)
    with _leader_first(hardware):
        if settings.data.data_root is None:
            engine.run(render_demo, root, "train")
    require_root(root)
    described = (root, dataset, dataset.protocol(data.protocol).name)
    base, recipe = preset.base, preset.pretrain
    assert base is not None, "_check asks"
    assert recipe is not None, "_check asks"
    engine.run(pretrain, *described, settings.out, base, recipe, preset.weights, hardware)


def _train_fused(
    settings: TrainingSettings, preset: Preset, hardware: Hardware, engine: Engine
) -> None:
    """Stage 1 or stage 2: both read queries, and the frozen ViT's tokens of their images."""
    recipe = preset.stage1 if settings.stage == "stage1" else preset.stage2
    asked = settings.data.model_copy(
        update={"split": "train", "stage1": settings.base, "stage2": settings.base}
    )
    inputs = resolve_inputs(asked)
    lease = partial(leased, inputs.store, asked.wait)
    with _leader_first(hardware) as leads, lease() if leads else nullcontext():
        ingested = ingest_split(asked, inputs, engine).ingested
        check_texts(asked, inputs, ingested)
        tokens = _tokens(settings, inputs, ingested, recipe, hardware, engine)
    data = (inputs.data_root, inputs.dataset, ingested, tokens)
    base, out, rest = inputs.stage1, settings.out, (preset.weights, hardware)
    judge = Stage1Judge if settings.stage == "stage1" else Stage2Judge
    selection = _selection(settings, recipe)
    if settings.validate_on is not None and hardware.compute().leads:
        draws = settings.data.data_root is None
        _ingest(_on(selection, settings.validate_on), settings.base, engine, draws=draws)
    if settings.stage == "stage1":
        judge1 = Stage1Judge(selection, engine)
        engine.run(train_stage1, *data, base, out, preset.stage1, *rest, validate=judge1)
    else:
        first, shape = settings.stage1, (preset.merge_from, preset.variant)
        assert first is not None, "_check asks"
        judge2, recipe2 = Stage2Judge(selection, engine), preset.stage2
        engine.run(train_stage2, *data, base, first, out, *shape, recipe2, *rest, validate=judge2)
    if settings.validate_on is not None and hardware.compute().leads:
        _validate(settings.out / "best", judge(_on(selection, settings.validate_on), engine))


def _ingest(validation: Settings, base: Path | None, engine: Engine, *, draws: bool) -> None:
    """What is measured at the end has its problems told at the start; the demo's is drawn. The
    base reads the texts as the model that comes of it."""
    if draws and validation.data_root is not None:
        engine.run(render_demo, validation.data_root, source_split(validation.split))
    with leased(open_store(validation.store), validation.wait):
        inputs = resolve_inputs(validation.model_copy(update={"stage1": base, "stage2": base}))
        ingested = ingest_split(validation, inputs, engine).ingested
        check_texts(validation, inputs, ingested)


def _validate(best: Path, judge: Stage1Judge | Stage2Judge) -> None:
    """Measure the best model on data that neither trained nor chose it; the model card keeps it."""
    on = judge.settings.queries or judge.settings.split
    recalls = judge(best).recalls()
    _log.info("the best model on %s: %s", on, recalls)
    add_to_card(best, f"On {on}, which neither trained nor chose it: {recalls}.")


def _on(selection: Settings, where: str) -> Settings:
    """These settings for a split; or for own data's other queries, which have no splits."""
    if selection.dataset == "own":
        return selection.model_copy(update={"split": "val", "queries": where})
    return Settings.model_validate(selection.model_dump() | {"split": where})


def _tokens(
    settings: TrainingSettings,
    inputs: Inputs,
    ingested: Ingested,
    recipe: Stage1Recipe | Stage2Recipe,
    hardware: Hardware,
    engine: Engine,
) -> KeptTokens | None:
    if settings.features == "recompute":
        return None
    workers = find_workers(settings.data.workers, hardware.device)
    machine = replace(inputs.machine, device=hardware.device, workers=workers)
    stage = tokens_of(ingested, inputs.stage1, inputs.data_root, recipe.tokens)
    engine.make(stage, machine)
    return stage.made


def _selection(settings: TrainingSettings, recipe: Stage1Recipe | Stage2Recipe) -> Settings:
    """A run over the selection queries, in a store of its own: the training's runs are not the
    user's. Image tokens are kept there, too, where the recipe keeps its own as a run reads them: in
    fp32."""
    keeps = settings.features == "cache" and recipe.tokens == "fp32"
    tokens = "cache" if keeps and settings.data.tokens == "auto" else settings.data.tokens
    return settings.data.model_copy(
        update={
            "split": "selection",
            "k": recipe.k,
            "tokens": tokens,
            "store": settings.out / VALIDATION_FOLDER,
            "data_root": settings.data.data_root or demo_root(settings.data.store),
            "stage1": settings.stage1,
        }
    )


@contextmanager
def _leader_first(hardware: Hardware) -> Iterator[bool]:
    """Of several processes the first one makes what is missing, and the others then find it.
    Yields whether this is the first."""
    state = join_processes(hardware.device)
    with state.main_process_first():
        yield state.is_main_process


def _hardware(settings: TrainingSettings) -> Hardware:
    device = find_device(settings.data.device)
    precision: str = settings.precision
    if precision == "auto":
        bf16 = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        precision = "bf16" if bf16 else "fp32"
    return Hardware(device, precision, settings.micro_batch)


def _check(settings: TrainingSettings) -> Preset:
    faults = []
    preset = None
    try:
        preset = find_recipe(settings.recipe).preset
    except UsageError as error:
        faults.append(error.in_a_line)
    try:
        open_dataset(complete(settings.data))
        if preset is not None and settings.stage != "pretrain":
            require_measured(settings.data, getattr(preset, settings.stage))
    except CirError as error:
        faults.append(error.in_a_line)
    if settings.data.dataset != "demo" and settings.data.data_root is None:
        faults.append(f"dataset {settings.data.dataset} needs --data-root")
    if settings.stage == "pretrain" and preset is not None and preset.pretrain is None:
        faults.append(f"recipe {settings.recipe} has no pre-training: convert published weights")
    if settings.stage != "pretrain" and settings.base is None:
        faults.append(f"{settings.stage} needs --base, the pre-trained model it starts from")
    if settings.stage == "stage2" and settings.stage1 is None:
        faults.append("stage2 needs --stage1, the finished stage 1 whose z_t it reads")
    if settings.validate_on is not None:
        faults += _faults_of_validation(settings)
    if settings.data.device.startswith("cuda:"):
        faults.append("a training takes GPUs by CUDA_VISIBLE_DEVICES=1, not by --device cuda:1")
    if faults or preset is None:
        raise UsageError(
            "this training cannot start",
            cause="; ".join(faults),
            remedy="`cir-pipeline train --help` tells what each needs",
        )
    if settings.stage == "stage2" and settings.base is not None and settings.stage1 is not None:
        require_beginning(settings.base, settings.stage1, preset.merge_from)
    return preset


def require_measured(data: Settings, recipe: FusedRecipe) -> None:
    """Raises UsageError when validations of these data do not measure what the best checkpoint is
    chosen by."""
    described = complete(data)
    protocol = open_dataset(described).protocol(described.protocol)
    measured = [*(f"recall@{k}" for k in protocol.ks), "mrr"]
    if recipe.selected_by not in measured:
        raise UsageError(
            f"selected_by is {recipe.selected_by}, and validation measures {', '.join(measured)}",
            item=f"protocol {protocol.name}",
            remedy="set selected_by in the recipe to one of these",
        )


def _faults_of_validation(settings: TrainingSettings) -> list[str]:
    """What is asked only after hours must be there before."""
    if settings.stage == "pretrain":
        return ["pre-training is not measured: --validate-on is for stage1 and stage2"]
    try:
        open_dataset(complete(_on(settings.data, settings.validate_on or "")))
    except ValidationError:
        return [f"--validate-on {settings.validate_on} is no split: say val or test"]
    except CirError as error:
        return [error.in_a_line]
    return []
