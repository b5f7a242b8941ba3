"""The image encoders that both stages can be trained over: BLIP's ViT, or a frozen tower."""

from typing import Annotated, Any

from jaxtyping import Float
from pydantic import Discriminator, Tag
from torch import Tensor

from cir_core.layers.config import VisionConfig
from cir_core.layers.cost import vision_flops
from cir_core.layers.tower import Tower, TowerConfig, tower_flops
from cir_core.layers.vision import FrozenEncoder, VisionTransformer


def _which(config: Any) -> str:
    """The ViT's has no kind, since it was the only one when configs were first written."""
    kind = config.get("kind") if isinstance(config, dict) else getattr(config, "kind", None)
    return "vit" if kind is None else "tower"


ImageConfig = Annotated[
    Annotated[VisionConfig, Tag("vit")] | Annotated[TowerConfig, Tag("tower")],
    Discriminator(_which),
]


def image_encoder(config: ImageConfig) -> FrozenEncoder:
    """With weights that are yet to be filled."""
    return Tower(config) if isinstance(config, TowerConfig) else VisionTransformer(config)


def image_flops(config: ImageConfig) -> int:
    """Of one image."""
    return tower_flops(config) if isinstance(config, TowerConfig) else vision_flops(config)


def whole_image(
    config: ImageConfig, image_tokens: Float[Tensor, "image token width"]
) -> Float[Tensor, "image width"]:
    """What stands for all of an image: [CLS], or the mean of the patches where there is none."""
    if isinstance(config, TowerConfig) and config.kind == "siglip":
        return image_tokens.mean(dim=1)
    return image_tokens[:, 0]
