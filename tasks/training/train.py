"""Train the base model, stage 1 and stage 2: data and models in, checkpoints out."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from cir_core.datasets.registry import Dataset
from cir_core.errors import UsageError
from cir_core.families import require_fit
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.variant import Variant
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.training.gradients import Compute
from cir_core.training.losses import TEMPERATURE_RANGE
from cir_core.training.pretrain import Pretraining
from cir_core.training.recipes import (
    FusedRecipe,
    PretrainRecipe,
    Stage1Recipe,
    Stage2Recipe,
    StoredPrecision,
)
from cir_core.training.stage1 import Stage1Training
from cir_core.training.stage2 import Stage2Training, stage2_from_base
from storage.models.folders import model_sha256
from storage.views import Ingested, KeptTokens
from tasks.models.opening import open_stage1, read_stage1_config
from tasks.training.described import read_described
from tasks.training.ledger import ledger_key, training_key
from tasks.training.run import Output, Selection, Validate, run_training
from tasks.training.triplets import read_triplets

_log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """What a training runs on; changes no result. ``device`` is cpu or cuda, ``precision`` fp32 or
    bf16 (autocast), ``micro_batch`` the rows at a time."""

    device: str
    precision: str = "fp32"
    micro_batch: int | None = None

    def compute(self) -> Compute:
        return Compute.on(self.device, precision=self.precision, micro_batch=self.micro_batch)


def pretrain(
    root: Path,
    dataset: Dataset,
    protocol: str,
    out: Path,
    config: Stage1Config,
    recipe: PretrainRecipe,
    weights: StoredPrecision,
    hardware: Hardware,
) -> None:
    """The base model of both stages, from the dataset's described images."""
    compute = hardware.compute()
    data = read_described(root, dataset, protocol, config.text, config.pictures)
    training = Pretraining(config, data, recipe, compute.device)
    output = Output(
        folder=out,
        dtype=_DTYPES[weights],
        origin={"config": config.model_dump_json(), "data": data.digest()},
        card=f"Base model of both stages, pre-trained on {len(training)} described images.",
    )
    run_training(training, training.model, recipe, compute, output, None)


def train_stage1(
    root: Path,
    dataset: Dataset,
    ingested: Ingested,
    tokens: KeptTokens | None,
    base: Path,
    out: Path,
    recipe: Stage1Recipe,
    weights: StoredPrecision,
    hardware: Hardware,
    *,
    validate: Validate,
) -> None:
    """Stage 1 from the pre-trained base, on the ingested training split."""
    compute, base_sha256 = hardware.compute(), model_sha256(base)
    source = open_stage1(base, sha256=base_sha256)
    model = Stage1Model(source.config.model_copy(update={"kind": "stage1"}))
    state = source.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    triplets = read_triplets(root, dataset, ingested, tokens, source, recipe.captions)
    _log.info("training on %d queries", len(triplets))
    output = Output(
        folder=out,
        dtype=_DTYPES[weights],
        origin={"base": base_sha256, "data": triplets.digest()},
        card=f"Stage 1 (candidate filtering), trained on {len(triplets)} queries.",
    )
    training = Stage1Training(model, triplets, recipe, compute.device)
    selection = _selection(validate, recipe)
    run_training(training, model, recipe, compute, output, selection)


def train_stage2(
    root: Path,
    dataset: Dataset,
    ingested: Ingested,
    tokens: KeptTokens | None,
    base: Path,
    stage1: Path,
    out: Path,
    merge_from: int,
    variant: Variant,
    recipe: Stage2Recipe,
    weights: StoredPrecision,
    hardware: Hardware,
    *,
    validate: Validate,
) -> None:
    """Stage 2 from the pre-trained base, over the z_t of the finished stage 1.

    Raises CheckpointRefused when the two hold another ViT or other words.
    """
    compute = hardware.compute()
    models = {"base": model_sha256(base), "stage1": model_sha256(stage1)}
    first = open_stage1(stage1, sha256=models["stage1"])
    source = open_stage1(base, sha256=models["base"])
    config = _stage2_config(source.config, first, merge_from, variant, recipe)
    require_fit(first.config, config, first.encoder.differing(source.encoder))
    torch.manual_seed(recipe.seed)
    model = stage2_from_base(source, config)
    triplets = read_triplets(root, dataset, ingested, tokens, first, recipe.captions)
    _log.info("training on %d queries", len(triplets))
    output = Output(
        folder=out,
        dtype=_DTYPES[weights],
        origin=_stage2_origin(models, config, triplets.digest()),
        card=f"Stage 2 (re-ranking), trained on {len(triplets)} queries.",
    )
    training = Stage2Training(model, first, triplets, recipe, compute.device)
    selection = _selection(validate, recipe, compares=not recipe.in_batch)
    run_training(training, model, recipe, compute, output, selection)


@dataclass(frozen=True)
class Beginning:
    """What a stage 2 is trained from: the config of its base, the stage 1 whose z_t it reads, and
    the names of both models' bytes."""

    base: Stage1Config
    stage1: Stage1Model
    models: Mapping[str, str]

    @classmethod
    def read(cls, base: Path, stage1: Path, models: Mapping[str, str]) -> Self:
        """Of two folders and the names of their bytes. Raises CheckpointRefused, and PreflightError
        for a stage 1 of another name."""
        first = open_stage1(stage1, sha256=models["stage1"])
        return cls(read_stage1_config(base), first, models)

    def key(self, merge_from: int, variant: Variant, recipe: Stage2Recipe, *, data: str) -> str:
        """What the ledger of ``train_stage2`` says that it is of; ``data`` is ``data_digest``."""
        config = _stage2_config(self.base, self.stage1, merge_from, variant, recipe)
        return ledger_key(training_key(recipe, _stage2_origin(self.models, config, data)))


def require_beginning(base: Path, stage1: Path, merge_from: int) -> None:
    """Raises CheckpointRefused, without reading a weight, for models that no stage 2 is trained
    from, and UsageError when the base has fewer layers than ``merge_from``."""
    config, _ = (read_stage1_config(folder) for folder in (base, stage1))
    if merge_from > config.text.layers:
        raise UsageError(
            f"merge_from is {merge_from}, and the base has {config.text.layers} layers",
            item=str(base),
            remedy=f"say {config.text.layers} where all of them are to merge by their mean",
        )


def _stage2_config(
    base: Stage1Config,
    stage1: Stage1Model,
    merge_from: int,
    variant: Variant,
    recipe: Stage2Recipe,
) -> Stage2Config:
    return Stage2Config(
        kind="stage2",
        vision=base.vision,
        text=base.text,
        merge_from=merge_from,
        variant=variant,
        prior=recipe.prior / stage1.temperature.clamp(*TEMPERATURE_RANGE).item(),
    )


def _stage2_origin(models: Mapping[str, str], config: Stage2Config, data: str) -> dict[str, str]:
    return {**models, "config": config.model_dump_json(), "data": data}


def _selection(validate: Validate, recipe: FusedRecipe, *, compares: bool = False) -> Selection:
    return Selection(
        validate, recipe.validate_every, recipe.selected_by, recipe.patience, compares=compares
    )
