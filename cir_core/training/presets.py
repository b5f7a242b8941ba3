"""Named recipes. ``demo`` made the shipped pair on two CPU cores; docs/training.md tells more."""

from cir_core.training.loop import Recipe
from cir_core.training.pretrain import PretrainRecipe
from cir_core.training.stage2 import Stage2Recipe

DEMO_PRETRAIN = PretrainRecipe(
    steps=1800, batch=64, learning_rate=1e-3, warmup=150, masked=0.4, group=2
)
DEMO_STAGE1 = Recipe(steps=2000, batch=128, learning_rate=6e-4, warmup=100)
DEMO_STAGE2 = Stage2Recipe(steps=14_000, batch=24, learning_rate=4e-4, warmup=150)
