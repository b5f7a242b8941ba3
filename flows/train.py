"""Training, composed: which data, which recipe, which model comes from which."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cir_core.datasets.fashion_iq import FashionIQ
from cir_core.datasets.registry import find_dataset
from cir_core.errors import UsageError
from cir_core.training.presets import PRESETS, Preset
from flows.engine import Engine
from flows.settings import demo_root
from storage.annotations import require_root
from tasks.render import render_demo
from tasks.train import pretrain, train_stage1, train_stage2

TrainedStage = Literal["pretrain", "stage1", "stage2"]


@dataclass(frozen=True)
class TrainingSettings:
    """What one training is asked to do. ``base`` is the pre-trained model that stages 1 and 2
    start from; ``stage1`` the finished stage 1 whose z_t stage 2 reads."""

    stage: TrainedStage
    dataset: str
    preset: str
    data_root: Path | None
    store: Path
    out: Path
    base: Path | None
    stage1: Path | None


def run_training(settings: TrainingSettings, engine: Engine) -> Path:
    """Train one model and write it to ``out``; the same call after a kill goes on where it was.

    Raises UsageError, listing everything at once, for an unknown preset, a dataset that cannot be
    trained on, or a model that is needed and not given.
    """
    preset = _check(settings)
    root = settings.data_root or demo_root(settings.store)
    if settings.dataset == "demo" and settings.data_root is None:
        engine.run(render_demo, root, "train")
    require_root(root)
    if settings.stage == "pretrain":
        engine.run(pretrain, root, settings.out, preset.base, preset.pretrain)
    elif settings.stage == "stage1":
        engine.run(train_stage1, root, settings.base, settings.out, preset.stage1)
    else:
        engine.run(
            train_stage2,
            root,
            settings.base,
            settings.stage1,
            settings.out,
            preset.merge_from,
            preset.stage2,
        )
    return settings.out


def _check(settings: TrainingSettings) -> Preset:
    faults = []
    if settings.preset not in PRESETS:
        faults.append(f"no preset is called {settings.preset!r}; there is {', '.join(PRESETS)}")
    if not isinstance(find_dataset(settings.dataset).adapter, FashionIQ):
        faults.append(f"training on {settings.dataset} is not built yet; demo and fiq are")
    if settings.data_root is None and settings.dataset != "demo":
        faults.append(f"dataset {settings.dataset} needs --data-root")
    if settings.stage != "pretrain" and settings.base is None:
        faults.append(f"{settings.stage} needs --base, the pre-trained model it starts from")
    if settings.stage == "stage2" and settings.stage1 is None:
        faults.append("stage2 needs --stage1, the finished stage 1 whose z_t it reads")
    if faults:
        raise UsageError("this training cannot start", cause="; ".join(faults))
    return PRESETS[settings.preset]
