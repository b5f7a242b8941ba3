"""Small copies of Fashion-IQ and CIRR, of drawn garments, and a tiny model pair to run on them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cir_core.checkpoints.published import convert_published
from cir_core.datasets.demo.drawing import draw
from cir_core.datasets.demo.garments import CATEGORIES, Garment, change, draw_garment
from cir_core.datasets.demo.wording import modification_captions
from cir_core.layers.config import Vocabulary
from cir_core.layers.wordpiece import Tokenizer
from cir_core.rerankers.dual.config import Stage2Config
from flows.engines.engine import InProcess
from flows.run import Run, run_pipeline
from flows.settings import Settings
from storage.models.folders import write_checkpoint
from tasks.models.opening import read_reranker_config
from tests.support.tiny_checkpoints import tiny_stage1, tiny_stage2
from tests.support.tolerances import rounding, text_sums, vision_sums

FIQ_CATEGORIES = ("dress", "toptee")
FIQ_IMAGES, FIQ_QUERIES = 14, 7
"""Per category."""

CIRR_IMAGES, CIRR_QUERIES = 12, 7
K = 6
"""Candidates per query: few enough that some targets are not among them."""
LONGEST_TEXT = 40

VOCABULARY: Vocabulary = "demo"
WORDS = Tokenizer(VOCABULARY).vocabulary_size
"""What the small pair reads."""


@dataclass(frozen=True)
class Pair:
    """Folders of a converted stage 1 and stage 2 over the same visual encoder (64 px)."""

    stage1: Path
    stage2: Path


def rounding_of(pair: Pair) -> float:
    """How far two runs' scores, or states on the way there, may lie apart: from pixels through the
    ViT, the fusion encoder and the dual encoder. Values lie between -5 and 5."""
    config = read_reranker_config(pair.stage2)
    assert isinstance(config, Stage2Config)
    each = text_sums(config.text, config.vision, tokens=LONGEST_TEXT)
    return rounding(vision_sums(config.vision) + 2 * each, magnitude=5)


@dataclass(frozen=True)
class Bench:
    """A data root, its dataset's name, and what a run of it needs to be told."""

    dataset: str
    root: Path
    pair: Pair
    categories: tuple[str, ...] = ()

    def settings(self, store: Path, **changes: Any) -> Settings:
        values = {
            "dataset": self.dataset,
            "data_root": self.root,
            "categories": self.categories,
            "stage1": self.pair.stage1,
            "stage2": self.pair.stage2,
            "k": K,
            "store": store,
            "device": "cpu",
            "batch": 5,
            "workers": 0,
        }
        return Settings.model_validate(values | changes)

    def run(self, store: Path, **changes: Any) -> Run:
        return run_pipeline(self.settings(store, **changes), InProcess())

    def finish(self, store: Path) -> "Finished":
        return Finished(self, store, self.run(store))

    def arguments(self, store: Path) -> list[str]:
        """The same run for the command line."""
        options = [
            *("--dataset", self.dataset, "--data-root", str(self.root), "--store", str(store)),
            *("--stage1", str(self.pair.stage1), "--stage2", str(self.pair.stage2)),
            *(
                "--k",
                str(K),
                "--batch",
                "5",
                "--workers",
                "0",
                "--device",
                "cpu",
                "--engine",
                "in-process",
            ),
        ]
        return options + [part for name in self.categories for part in ("--category", name)]


@dataclass(frozen=True)
class Finished:
    """A benchmark, and a store in which its run has ended. Read only."""

    bench: Bench
    store: Path
    run: Run


def write_pair(folder: Path, *, published: bool = False) -> Pair:
    """The tiny pair of ``tiny_checkpoints``, converted; not by way of files, each of which a fresh
    process reads. If not as ``published``, it knows the demo's words alone, as small benchmarks do:
    the others are most of its weights, which each run hashes several times."""
    pair = Pair(folder / "stage1", folder / "stage2")
    for out, state in ((pair.stage1, tiny_stage1()), (pair.stage2, tiny_stage2())):
        converted = convert_published(state, out.name)
        config, tensors = converted.config.model_dump(), dict(converted.tensors)
        if not published:
            config["text"] |= {"vocabulary": VOCABULARY, "vocabulary_size": WORDS}
            (name,) = (name for name in tensors if name.endswith("embeddings.word.weight"))
            tensors[name] = tensors[name][:WORDS].clone()
        write_checkpoint(out, config, tensors)
    return pair


def write_fashion_iq(root: Path) -> None:
    """Two categories that share one image; half of the files are ``.jpg``, half ``.png``."""
    shared = f"{FIQ_CATEGORIES[0]}-00"
    for number, category in enumerate(FIQ_CATEGORIES):
        rng = np.random.default_rng((1, number))
        garments = _garments(category, FIQ_IMAGES, rng)
        names = [f"{category}-{index:02d}" for index in range(FIQ_IMAGES)]
        for index, (name, garment) in enumerate(zip(names, garments, strict=True)):
            _save(root / "images" / f"{name}{'.jpg' if index % 2 else '.png'}", garment, rng)
        pairs = _pairs(FIQ_IMAGES, FIQ_QUERIES, rng)
        captions = [
            {
                "candidate": names[before],
                "target": names[after],
                "captions": list(modification_captions(garments[before], garments[after], rng)),
            }
            for before, after in pairs
        ]
        gallery = names if shared in names else [*names, shared]
        _write_json(root / f"captions/cap.{category}.val.json", captions)
        _write_json(root / f"image_splits/split.{category}.val.json", gallery)


def write_cirr(root: Path) -> None:
    """One gallery of twelve; every query has a subset of six that holds reference and target."""
    rng = np.random.default_rng(2)
    garments = _garments(CATEGORIES[1], CIRR_IMAGES, rng)
    names = [f"dev-{index}-0-img0" for index in range(CIRR_IMAGES)]
    paths = {}
    for index, (name, garment) in enumerate(zip(names, garments, strict=True)):
        _save(root / "dev" / f"{name}{'.jpg' if index % 3 == 0 else '.png'}", garment, rng)
        paths[name] = f"./dev/{name}.png"  # as published, whatever the file is
    queries = []
    for number, (before, after) in enumerate(_pairs(CIRR_IMAGES, CIRR_QUERIES, rng)):
        others = [row for row in range(CIRR_IMAGES) if row not in (before, after)]
        members = rng.permutation([before, after, *rng.choice(others, 4, replace=False)])
        captions = modification_captions(garments[before], garments[after], rng)
        queries.append(
            {
                "pairid": 10 * number + 3,
                "reference": names[before],
                "target_hard": names[after],
                "target_soft": {names[after]: 1.0},
                "caption": captions[0],
                "img_set": {"id": number, "members": [names[row] for row in members]},
            }
        )
    _write_json(root / "cirr/captions/cap.rc2.val.json", queries)
    _write_json(root / "cirr/image_splits/split.rc2.val.json", paths)


def write_circo(root: Path) -> None:
    """One gallery of twelve; every query has two or three ground truths, the target among them."""
    rng = np.random.default_rng(3)
    garments = _garments(CATEGORIES[2], CIRR_IMAGES, rng)
    numbers = [100 + 7 * index for index in range(CIRR_IMAGES)]
    for number, garment in zip(numbers, garments, strict=True):
        _save(root / f"COCO2017_unlabeled/unlabeled2017/{number:012d}.jpg", garment, rng)
    queries = []
    for index, (before, after) in enumerate(_pairs(CIRR_IMAGES, CIRR_QUERIES, rng)):
        others = [row for row in range(CIRR_IMAGES) if row not in (before, after)]
        truths = [after, *rng.choice(others, 1 + index % 2, replace=False)]
        queries.append(
            {
                "id": index,
                "reference_img_id": numbers[before],
                "target_img_id": numbers[after],
                "gt_img_ids": sorted(numbers[row] for row in truths),
                "relative_caption": modification_captions(garments[before], garments[after], rng)[
                    0
                ],
                "shared_concept": "a top",
            }
        )
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in numbers]
    info = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
    _write_json(root / info, {"images": images})
    _write_json(root / "annotations/val.json", queries)


def _garments(category: str, count: int, rng: np.random.Generator) -> list[Garment]:
    garments = [draw_garment(category, rng)]
    while len(garments) < count:
        following = change(garments[rng.integers(len(garments))], rng)
        if following not in garments:
            garments.append(following)
    return garments


def _pairs(images: int, queries: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Distinct (reference, target) rows; the first two share their reference."""
    first, second, third = (int(row) for row in rng.permutation(images)[:3])
    pairs = [(first, second), (first, third)]
    while len(pairs) < queries:
        before, after = (int(row) for row in rng.integers(images, size=2))
        if before != after and (before, after) not in pairs:
            pairs.append((before, after))
    return pairs


def _save(path: Path, garment: Garment, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(garment, rng).save(path)


def _write_json(path: Path, content: Sequence[Any] | dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
