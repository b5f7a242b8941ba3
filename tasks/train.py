"""Train the base model, stage 1 and stage 2: data and models in, checkpoints out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cir_core.datasets.fashion_iq import image_files
from cir_core.datasets.registry import Dataset
from cir_core.datasets.selection import is_kept_out
from cir_core.errors import AnnotationError, ImageProblem, ProblemsFound
from cir_core.images import prepare
from cir_core.models.config import Stage1Config, Stage2Config
from cir_core.models.fusion import Stage1Model
from cir_core.models.load import require_same_vision
from cir_core.models.tokenizer import Tokenizer
from cir_core.training.gradients import Compute
from cir_core.training.pretrain import DescribedImages, Pretraining
from cir_core.training.recipes import (
    PretrainRecipe,
    Stage1Recipe,
    Stage2Recipe,
    StoredPrecision,
)
from cir_core.training.stage1 import Stage1Training
from cir_core.training.stage2 import Stage2Training, stage2_from_base
from storage.annotations import AnnotationReader
from storage.checkpoints import model_sha256
from storage.images import decode_image, find_image, read_image
from tasks.models import open_stage1
from tasks.training_data import read_triplets
from tasks.training_run import Output, Selection, Validate, run_training

PROBLEMS_SHOWN = 10
DESCRIPTIONS = "descriptions/descriptions.train.json"
CATALOGUE = "descriptions/catalogue.train.json"

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
    out: Path,
    config: Stage1Config,
    recipe: PretrainRecipe,
    weights: StoredPrecision,
    hardware: Hardware,
) -> None:
    """The base model of both stages, from the described images below ``root``."""
    compute, annotations = hardware.compute(), AnnotationReader(root)
    described = {
        image: texts
        for image, texts in annotations.read(DESCRIPTIONS).items()
        if not is_kept_out(image)
    }
    tokenizer = Tokenizer(config.text.vocabulary)
    data = DescribedImages(
        pixels=_read_pixels(root, list(described), config.vision.image_size),
        descriptions=[tokenizer(texts) for texts in described.values()],
        catalogue=_read_catalogue(root, annotations, list(described), tokenizer),
    )
    training = Pretraining(config, data, recipe, compute.device)
    output = Output(
        folder=out,
        dtype=_DTYPES[weights],
        origin={"config": config.model_dump_json(), "data": data.digest()},
        card=f"Base model of both stages, pre-trained on {len(described)} described images.",
    )
    run_training(training, training.model, recipe, compute, output, None)


def train_stage1(
    store: Path,
    root: Path,
    dataset: Dataset,
    ingested: str,
    tokens: str | None,
    base: Path,
    out: Path,
    recipe: Stage1Recipe,
    weights: StoredPrecision,
    hardware: Hardware,
    *,
    validate: Validate,
) -> None:
    """Stage 1 from the pre-trained base, on the ingested training split."""
    compute, source = hardware.compute(), open_stage1(base)
    model = Stage1Model(source.config.model_copy(update={"kind": "stage1"}))
    state = source.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    triplets = read_triplets(store, root, dataset, ingested, tokens, source, recipe.captions)
    output = Output(
        folder=out,
        dtype=_DTYPES[weights],
        origin={"base": model_sha256(base), "data": triplets.digest()},
        card=f"Stage 1 (candidate filtering), trained on {len(triplets)} queries.",
    )
    training = Stage1Training(model, triplets, recipe, compute.device)
    selection = Selection(validate, recipe.validate_every, recipe.selected_by)
    run_training(training, model, recipe, compute, output, selection)


def train_stage2(
    store: Path,
    root: Path,
    dataset: Dataset,
    ingested: str,
    tokens: str | None,
    base: Path,
    stage1: Path,
    out: Path,
    merge_from: int,
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
    first, source = open_stage1(stage1), open_stage1(base)
    require_same_vision(first, source)
    config = Stage2Config(
        kind="stage2", vision=source.config.vision, text=source.config.text, merge_from=merge_from
    )
    torch.manual_seed(recipe.seed)
    model = stage2_from_base(source, config)
    triplets = read_triplets(store, root, dataset, ingested, tokens, first, recipe.captions)
    output = Output(
        folder=out,
        dtype=_DTYPES[weights],
        origin={
            "base": model_sha256(base),
            "stage1": model_sha256(stage1),
            "config": config.model_dump_json(),
            "data": triplets.digest(),
        },
        card=f"Stage 2 (re-ranking), trained on {len(triplets)} queries.",
    )
    training = Stage2Training(model, first, triplets, recipe, compute.device)
    selection = Selection(validate, recipe.validate_every, recipe.selected_by)
    run_training(training, model, recipe, compute, output, selection)


def _read_catalogue(
    root: Path, annotations: AnnotationReader, images: list[str], tokenizer: Tokenizer
) -> list[list[int]] | None:
    """None for data without a catalogue. Raises AnnotationError when an image has no entry."""
    if not (root / CATALOGUE).is_file():
        return None
    entries = annotations.read(CATALOGUE)
    without = [image for image in images if image not in entries]
    if without:
        raise AnnotationError(
            f"{len(without)} of {len(images)} described images are not in the catalogue",
            item=", ".join(without[:PROBLEMS_SHOWN]),
            cause=f"{CATALOGUE} is optional, but where it is there it must name every image",
            remedy="add their entries, or take the file away",
        )
    return tokenizer([entries[image] for image in images])


def _read_pixels(root: Path, images: list[str], size: int) -> Tensor:
    """Raises ProblemsFound naming every image that is missing or broken."""
    pixels = np.empty((len(images), size, size, 3), dtype=np.uint8)
    problems = []
    for row, image in zip(pixels, images, strict=True):
        try:
            relative = find_image(root, image_files(image))
            row[:] = prepare(decode_image(read_image(root, relative), relative), size)
        except ImageProblem as problem:
            problems.append(f"{problem.item}: {problem.kind}")
    if problems:
        raise ProblemsFound(
            f"{len(problems)} of {len(images)} described images cannot be used",
            item=", ".join(problems[:PROBLEMS_SHOWN]),
            remedy=f"repair them, or take them out of {DESCRIPTIONS}",
        )
    return torch.from_numpy(pixels)
