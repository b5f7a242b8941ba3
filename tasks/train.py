"""Train the models: read a training split, run the core's loop, write checkpoints."""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cir_core.datasets.fashion_iq import FashionIQ, image_files
from cir_core.images import normalise, prepare
from cir_core.metrics.protocols import FASHION_IQ
from cir_core.models.config import Stage1Config, Stage2Config
from cir_core.models.fusion import Stage1Model
from cir_core.models.load import require_same_vision
from cir_core.models.reranker import Stage2Model
from cir_core.models.tokenizer import Tokenizer
from cir_core.models.vision import VisionTransformer
from cir_core.training.loop import Objective, Progress, Recipe, fit, optimiser
from cir_core.training.pretrain import DescribedImages, Pretraining, PretrainRecipe
from cir_core.training.stage1 import Stage1Training
from cir_core.training.stage2 import Stage2Recipe, Stage2Training, stage2_from_base
from cir_core.training.triplets import Triplets
from cir_core.types import Benchmark, CaptionRule
from storage.annotations import read_json
from storage.atomic import commit, make_folder
from storage.checkpoints import model_sha256, write_checkpoint
from storage.images import decode_image, find_image, read_image
from tasks.models import open_stage1, tokenize

STATE_FILE, PROGRESS_FILE = "state.pt", "progress.jsonl"
"""What resumes a training, and what it has told, beside the model it writes."""

SAVE_SECONDS = 120
"""Most work that a killed training loses."""

_log = logging.getLogger(__name__)


def pretrain(root: Path, out: Path, config: Stage1Config, recipe: PretrainRecipe) -> None:
    """The base model of both stages, from described images; written to ``out``."""
    described = read_json(root, "descriptions/descriptions.train.json")
    tokenizer = Tokenizer(config.text.vocabulary)
    files = [image_files(image) for image in described]
    data = DescribedImages(
        pixels=_read_pixels(root, files, config.vision.image_size),
        descriptions=[tokenizer(texts) for texts in described.values()],
    )
    training = Pretraining(config, data, recipe)
    _run(training, recipe, out, {"config": config.model_dump_json(), "data": data.digest()})
    _save(training.model, out)


def train_stage1(root: Path, base: Path, out: Path, recipe: Recipe) -> None:
    """Stage 1 from the pre-trained base, on the training queries below ``root``."""
    source = open_stage1(base)
    model = Stage1Model(source.config.model_copy(update={"kind": "stage1"}))
    state = source.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    triplets = _read_triplets(root, source)
    origin = {"base": model_sha256(base), "data": triplets.digest()}
    _run(Stage1Training(model, triplets, recipe), recipe, out, origin)
    _save(model, out)


def train_stage2(
    root: Path, base: Path, stage1: Path, out: Path, merge_from: int, recipe: Stage2Recipe
) -> None:
    """Stage 2 from the pre-trained base, over the z_t of the finished stage 1."""
    first, source = open_stage1(stage1), open_stage1(base)
    require_same_vision(first, source)
    config = Stage2Config(
        kind="stage2", vision=source.config.vision, text=source.config.text, merge_from=merge_from
    )
    torch.manual_seed(recipe.seed)
    model = stage2_from_base(source, config)
    triplets = _read_triplets(root, first)
    origin = {
        "base": model_sha256(base),
        "stage1": model_sha256(stage1),
        "config": config.model_dump_json(),
        "data": triplets.digest(),
    }
    _run(Stage2Training(model, first, triplets, recipe), recipe, out, origin)
    _save(model, out)


def _run(objective: Objective, recipe: Recipe, out: Path, origin: dict[str, str]) -> None:
    """Train to the end, from where an earlier run in ``out`` stopped, if it had the same recipe
    and the same origin (models it starts from, data)."""
    key = json.dumps({"recipe": recipe.model_dump(), **origin})
    make_folder(out)
    adam = optimiser(objective, recipe)
    state_file = out / STATE_FILE
    first_step = _resume(state_file, objective.trained, adam, key)
    saved = time.monotonic()
    for progress in _told(fit(objective, recipe, adam, first_step=first_step), out):
        if time.monotonic() - saved > SAVE_SECONDS or progress.step == recipe.steps:
            _save_state(state_file, objective.trained, adam, key, progress.step)
            saved = time.monotonic()


def _told(steps: Iterator[Progress], out: Path, every: int = 100) -> Iterator[Progress]:
    """Log the mean losses of each ``every`` steps, to the log and to ``progress.jsonl``."""
    sums: dict[str, float] = {}
    began, count = time.monotonic(), 0
    for progress in steps:
        count += 1
        for name, value in progress.losses.items():
            sums[name] = sums.get(name, 0.0) + value
        if progress.step % every == 0 or progress.step == progress.steps:
            rate = count / (time.monotonic() - began)
            line: dict[str, Any] = {"step": progress.step, "of": progress.steps}
            line |= {name: round(total / count, 4) for name, total in sums.items()}
            line |= {"steps_per_second": round(rate, 2)}
            line |= {"eta_seconds": round((progress.steps - progress.step) / rate)}
            _log.info(" ".join(f"{name}={value}" for name, value in line.items()))
            with (out / PROGRESS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            sums, began, count = {}, time.monotonic(), 0
        yield progress


def _resume(file: Path, model: nn.Module, adam: torch.optim.AdamW, key: str) -> int:
    if not file.is_file():
        return 0
    state = torch.load(file, weights_only=True)
    if state["key"] != key:
        _log.warning("recipe, models or data have changed since %s: starting anew", file)
        return 0
    model.load_state_dict(state["model"])
    adam.load_state_dict(state["optimiser"])
    step: int = state["step"]
    _log.info("resuming after step %d", step)
    return step


def _save_state(file: Path, model: nn.Module, adam: torch.optim.AdamW, key: str, step: int) -> None:
    state = {
        "model": model.state_dict(),
        "optimiser": adam.state_dict(),
        "key": key,
        "step": step,
    }

    def write(temporary: Path) -> None:
        torch.save(state, temporary)

    commit(file, write)


def _save(model: Stage1Model | Stage2Model, out: Path) -> None:
    """Weights are kept in fp16 (half the bytes, rounding far below what training resolves); the
    next training starts from the rounded ones, so both stages hold the same ViT."""
    write_checkpoint(out, model.config.model_dump(), model.state_dict(), dtype=torch.float16)


def _read_triplets(root: Path, stage1: Stage1Model) -> Triplets:
    """The training split with both orders of the captions, and its frozen image tokens."""

    read = cache(partial(read_json, root))  # both orders are in the same files

    def parse(captions: CaptionRule) -> Benchmark:
        adapter = FashionIQ()
        protocol = replace(FASHION_IQ[0], captions=captions)
        return adapter.parse("train", adapter.categories, read, protocol)

    published, reversed_ = parse("published"), parse("reversed")
    row = {image: index for index, image in enumerate(published.files)}
    categories = list(published.galleries)
    queries = [*published.queries, *reversed_.queries]
    pixels = _read_pixels(root, published.files.values(), stage1.config.vision.image_size)
    return Triplets(
        image_tokens=_encode(stage1.vision, pixels),
        reference=torch.tensor([row[query.reference_id] for query in queries]),
        target=torch.tensor([row[query.targets[0]] for query in queries]),
        category=torch.tensor([categories.index(query.category) for query in queries]),
        galleries=[
            torch.tensor([row[image] for image in gallery])
            for gallery in published.galleries.values()
        ],
        token_ids=tokenize(
            stage1.config.text,
            [query.query_id for query in queries],
            [query.text for query in queries],
        ),
    )


@torch.no_grad()
def _encode(vision: VisionTransformer, pixels: Tensor) -> Tensor:
    return torch.cat([vision(normalise(batch)) for batch in pixels.split(256)])


def _read_pixels(root: Path, files: Iterable[tuple[str, ...]], size: int) -> Tensor:
    files = list(files)
    pixels = np.empty((len(files), size, size, 3), dtype=np.uint8)
    for row, names in zip(pixels, files, strict=True):
        relative = find_image(root, names)
        row[:] = prepare(decode_image(read_image(root, relative), relative), size)
    return torch.from_numpy(pixels)
