"""A small world to train in: a few garments, narrow models, trainings of a few steps."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cir_core.datasets import selection
from cir_core.datasets.demo import world
from cir_core.layers.config import DEMO_TEXT, DEMO_VISION
from cir_core.retrievers.blip.config import DEMO_BLIP
from cir_core.training import presets
from flows.engines.engine import Engine, InProcess
from flows.settings import Settings
from flows.train import run_training
from flows.training_settings import TrainingSettings
from tasks.training import run as training_run


@dataclass(frozen=True)
class Workshop:
    """A small world, a store, and where the models go."""

    folder: Path
    engine: Engine = field(default_factory=InProcess)

    def settings(self, stage: str, out: str | None = None, **changes: Any) -> TrainingSettings:
        data = {"store": self.folder / "store", "device": "cpu", "workers": 0} | changes.pop(
            "data", {}
        )
        values = {
            "stage": stage,
            "recipe": "demo",
            "data": Settings.model_validate(data),
            "out": self.folder / (out or stage),
            "base": self.folder / "pretrain" / "best",
            "stage1": self.folder / "stage1" / "best",
        }
        return TrainingSettings.model_validate(values | changes)

    def train(self, stage: str, out: str | None = None, **changes: Any) -> Path:
        return run_training(self.settings(stage, out, **changes), self.engine)

    def journal(self, out: str) -> list[dict[str, Any]]:
        lines = (self.folder / out / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def small_workshop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A few families a category, and trainings of a few steps of a narrower model. Every third
    image is kept out, so that there is something to select on."""
    demo = presets.PRESETS["demo"]
    text = DEMO_TEXT.model_copy(
        update={"width": 32, "layers": 2, "feed_forward": 32, "dropout": 0.1}
    )
    vision = DEMO_VISION.model_copy(update={"width": 32, "depth": 1, "mlp_width": 32})
    assert demo.pretrain is not None
    few = {"batch": 4, "warmup": 2}
    fused = few | {"validate_every": 1, "k": 4}
    small = demo.model_copy(
        update={
            "base": DEMO_BLIP.model_copy(update={"vision": vision, "text": text}),
            "pretrain": demo.pretrain.model_copy(update=few | {"epochs": 1}),
            "stage1": demo.stage1.model_copy(update=fused | {"epochs": 2}),
            "stage2": demo.stage2.model_copy(
                update=fused | {"epochs": 2, "hard": 3, "hard_from": 5, "random": 2}
            ),
        }
    )
    monkeypatch.setattr(world, "FAMILIES", {"train": 2, "val": 1, "test": 1})
    monkeypatch.setattr(selection, "SHARE", 1 / 3)
    monkeypatch.setitem(presets.PRESETS, "demo", small)
    monkeypatch.setattr(training_run, "SAVE_SECONDS", 0)
    return Workshop(folder)


def change_recipe(monkeypatch: pytest.MonkeyPatch, **changes: dict[str, Any]) -> None:
    """Other values of the preset's trainings, by their names."""
    demo = presets.PRESETS["demo"]
    recipes = {name: getattr(demo, name).model_copy(update=new) for name, new in changes.items()}
    monkeypatch.setitem(presets.PRESETS, "demo", demo.model_copy(update=recipes))
