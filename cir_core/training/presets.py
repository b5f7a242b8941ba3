"""Named recipes. ``demo`` made the shipped pair on two CPU cores; docs/training.md tells more."""

from dataclasses import dataclass

from cir_core.models.config import DEMO_BLIP, DEMO_MERGE_FROM, Stage1Config
from cir_core.training.loop import Recipe
from cir_core.training.pretrain import PretrainRecipe
from cir_core.training.stage2 import Stage2Recipe


@dataclass(frozen=True)
class Preset:
    """The sizes of the base model, and the three trainings one after the other."""

    base: Stage1Config
    merge_from: int
    pretrain: PretrainRecipe
    stage1: Recipe
    stage2: Stage2Recipe


PRESETS = {
    "demo": Preset(
        base=DEMO_BLIP,
        merge_from=DEMO_MERGE_FROM,
        pretrain=PretrainRecipe(
            steps=1800, batch=64, learning_rate=1e-3, warmup=150, masked=0.4, group=2
        ),
        stage1=Recipe(steps=2000, batch=128, learning_rate=6e-4, warmup=100),
        stage2=Stage2Recipe(
            steps=9_000,
            batch=24,
            learning_rate=5e-4,
            warmup=150,
            hard=8,
            hard_from=40,
            random=2,
        ),
    )
}
