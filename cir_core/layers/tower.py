"""CLIP's and SigLIP's towers: pictures to image tokens, and token ids to their states."""

from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from cir_core.layers.attention import module_list
from cir_core.layers.config import Frozen
from cir_core.layers.preprocess import CHANNELS, Fit, Preprocess, Resample
from cir_core.layers.transformer import Activation, Block, block_flops
from cir_core.layers.vision import FrozenEncoder


class TowerConfig(Frozen):
    """An image tower: square images, square patches. CLIP's puts a [CLS] token in front and a norm
    before its blocks; SigLIP's has neither. What follows ``epsilon`` says how pictures become its
    input."""

    kind: Literal["clip", "siglip"]
    image_size: PositiveInt
    patch_size: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    mlp_width: PositiveInt
    activation: Activation
    epsilon: PositiveFloat
    fit: Fit
    resample: Resample
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        return self.patches + (self.kind == "clip")

    @property
    def pictures(self) -> Preprocess:
        return Preprocess(
            self.image_size, mean=self.mean, std=self.std, fit=self.fit, resample=self.resample
        )

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.image_size < self.patch_size or self.width % self.heads:
            raise ValueError("image_size must not be below patch_size, width a multiple of heads")
        return self


class Tower(FrozenEncoder):
    """An ``ImageEncoder``."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        is_clip, width, patch = config.kind == "clip", config.width, config.patch_size
        self.patch = nn.Conv2d(CHANNELS, width, patch, stride=patch, bias=not is_clip)
        self.position = nn.Parameter(torch.zeros(config.tokens, width))
        if is_clip:
            self.cls_token = nn.Parameter(torch.zeros(width))
            self.input_norm = nn.LayerNorm(width, eps=config.epsilon)
        self.blocks = module_list(
            Block(
                width,
                config.heads,
                config.mlp_width,
                activation=config.activation,
                epsilon=config.epsilon,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.epsilon)

    def forward(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> Float[Tensor, "image token width"]:
        """Image tokens after the final norm, patches row by row, CLIP's [CLS] in front of them.
        (CLIP itself reads [CLS] alone, and norms nothing else.)"""
        x = self.patch(pixels).flatten(2).transpose(1, 2)
        if self.config.kind == "clip":
            x = torch.cat([self.cls_token.expand(len(x), 1, -1), x], dim=1)
        x = x + self.position
        if self.config.kind == "clip":
            x = self.input_norm(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def tower_flops(config: TowerConfig) -> int:
    """Of one image."""
    patches = 2 * config.patches * CHANNELS * config.patch_size**2 * config.width
    tokens = config.tokens
    return patches + config.depth * block_flops(config.width, config.mlp_width, tokens, tokens**2)


class TextTowerConfig(Frozen):
    """``positions`` is the longest text in tokens, its first and last included."""

    vocabulary_size: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt
    positions: PositiveInt
    activation: Activation
    epsilon: PositiveFloat

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class TextTower(nn.Module):
    """Words and positions through pre-norm blocks; where it is ``causal``, a token looks at none
    after it."""

    def __init__(self, config: TextTowerConfig, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.word = nn.Embedding(config.vocabulary_size, config.width)
        self.position = nn.Embedding(config.positions, config.width)
        self.blocks = module_list(
            Block(
                config.width,
                config.heads,
                config.feed_forward,
                activation=config.activation,
                epsilon=config.epsilon,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.epsilon)

    def forward(self, token_ids: Int[Tensor, "text token"]) -> Float[Tensor, "text token width"]:
        return self.read(self.word(token_ids))

    def read(self, words: Float[Tensor, "text token width"]) -> Float[Tensor, "text token width"]:
        """Of words that are embedded already."""
        length = words.shape[1]
        x = words + self.position.weight[:length]
        mask = None
        if self.causal:
            mask = torch.ones(length, length, dtype=torch.bool, device=words.device).tril()
        for block in self.blocks:
            x = block(x, mask)
        states: Tensor = self.norm(x)
        return states


def reading_flops(config: TextTowerConfig, tokens: int, looks: int) -> int:
    """Of texts of so many tokens in all; ``looks`` is the sum of their lengths' squares (a causal
    mask spares no work)."""
    return config.layers * block_flops(config.width, config.feed_forward, tokens, looks)
