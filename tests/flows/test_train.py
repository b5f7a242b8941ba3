"""The three trainings, composed, on a few drawn garments: they run, resume, and fit together."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cir_core.datasets.demo import world
from cir_core.errors import UsageError
from cir_core.models.config import DEMO_TEXT, DEMO_VISION
from cir_core.training.loop import Progress
from cir_core.training.presets import PRESETS
from flows import train
from flows.engine import InProcess
from flows.pipeline import run_pipeline
from flows.settings import Settings
from flows.train import TrainedStage, TrainingSettings, run_training
from storage.checkpoints import model_sha256
from tasks import train as train_task


@dataclass(frozen=True)
class Workshop:
    """A small world, a store, and where the models go."""

    folder: Path

    def train(self, stage: TrainedStage, out: str | None = None) -> Path:
        return run_training(
            TrainingSettings(
                stage=stage,
                dataset="demo",
                preset="demo",
                data_root=None,
                store=self.folder / "store",
                out=self.folder / (out or stage),
                base=self.folder / "pretrain",
                stage1=self.folder / "stage1",
            ),
            InProcess(),
        )


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two families a category and trainings of a few steps of a narrower model."""
    demo = PRESETS["demo"]
    base = demo.base.model_copy(
        update={
            "vision": DEMO_VISION.model_copy(update={"width": 32, "depth": 1, "mlp_width": 32}),
            "text": DEMO_TEXT.model_copy(update={"width": 32, "layers": 2, "feed_forward": 32}),
        }
    )
    few = {"steps": 6, "batch": 4, "warmup": 2}
    small = replace(
        demo,
        base=base,
        pretrain=demo.pretrain.model_copy(update=few),
        stage1=demo.stage1.model_copy(update=few),
        stage2=demo.stage2.model_copy(update=few | {"hard": 3, "hard_from": 5, "random": 2}),
    )
    monkeypatch.setattr(world, "FAMILIES", {"train": 2, "val": 2})
    monkeypatch.setattr(train, "PRESETS", {"demo": small})
    monkeypatch.setattr(train_task, "SAVE_SECONDS", 0)


@pytest.mark.usefixtures("small_world")
def test_the_trained_pair_runs(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    workshop.train("pretrain")
    stage1, stage2 = workshop.train("stage1"), workshop.train("stage2")
    run = run_pipeline(
        Settings(store=tmp_path / "store", stage1=stage1, stage2=stage2, k=4, device="cpu"),
        InProcess(),
    )
    assert run.report.is_file()


@pytest.mark.usefixtures("small_world")
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop(tmp_path)
    workshop.train("pretrain")
    undisturbed = workshop.train("stage1")
    told = train_task._told

    def interrupted(steps: Iterator[Progress], out: Path) -> Iterator[Progress]:
        for progress in told(steps, out):
            yield progress
            if progress.step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(train_task, "_told", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workshop.train("stage1", "again")
    assert not (tmp_path / "again" / "model.safetensors").exists()
    assert model_sha256(workshop.train("stage1", "again")) == model_sha256(undisturbed)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    settings = TrainingSettings(
        stage="stage2",
        dataset="cirr",
        preset="huge",
        data_root=None,
        store=tmp_path,
        out=tmp_path / "out",
        base=None,
        stage1=None,
    )
    with pytest.raises(UsageError) as caught:
        run_training(settings, InProcess())
    for word in ("huge", "cirr", "--data-root", "--base", "--stage1"):
        assert word in caught.value.cause
