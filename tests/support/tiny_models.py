"""Models of a few thousand weights, of any shape, filled with magnitudes of a trained model."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from cir_core.layers.config import TextConfig, VisionConfig
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.dual.variant import PAPERS, Variant
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model

Model = TypeVar("Model", bound=nn.Module)

VISION = VisionConfig(image_size=16, patch_size=8, width=12, depth=2, heads=3, mlp_width=20)
"""Five tokens an image, of another width than the text's."""

TEXT = TextConfig(
    vocabulary="demo",
    vocabulary_size=180,
    width=16,
    layers=3,
    heads=2,
    feed_forward=24,
    positions=20,
)


def text_config(*, layers: int = TEXT.layers, dropout: float = TEXT.dropout) -> TextConfig:
    return TEXT.model_copy(update={"layers": layers, "dropout": dropout})


def tiny_stage1(*, layers: int = 3, dropout: float = 0.1, seed: int = 1) -> Stage1Model:
    """Of kind ``blip``: with a matching head, so that it serves as a base too."""
    text = text_config(layers=layers, dropout=dropout)
    config = Stage1Config(kind="blip", vision=VISION, text=text, embedding=8)
    return fill(Stage1Model(config), seed)


def tiny_stage2(
    *,
    merge_from: int = 1,
    layers: int = 3,
    dropout: float = 0.1,
    seed: int = 2,
    variant: Variant = PAPERS,
) -> Stage2Model:
    return fill(Stage2Model(stage2_config(merge_from, layers, dropout, variant)), seed)


def stage2_config(
    merge_from: int = 1, layers: int = 3, dropout: float = 0.1, variant: Variant = PAPERS
) -> Stage2Config:
    text = text_config(layers=layers, dropout=dropout)
    return Stage2Config(
        kind="stage2", vision=VISION, text=text, merge_from=merge_from, variant=variant
    )


@torch.no_grad()
def fill(model: Model, seed: int) -> Model:
    """Every weight drawn anew, none left at zero or one; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(_drawn(name, parameter.shape, generator))
    return model.eval()


def _drawn(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if name == "temperature":
        return torch.tensor(0.07)
    draws = torch.randn(shape, generator=generator)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.2 * draws
    if name.endswith("bias"):
        return 0.1 * draws
    fan_in = shape[1:].numel() if len(shape) > 1 else 1
    return draws * 1.5 / fan_in**0.5
