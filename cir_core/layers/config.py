"""Sizes of the models: what a checkpoint's ``config.json`` holds, and the demo preset."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, model_validator

Kind = Literal["blip", "stage1", "stage2"]
Vocabulary = Literal["bert-base-uncased", "demo"]

HEAD_WIDTH = 64
"""BLIP and BERT use heads of 64; the published code derives their number from the width."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VisionConfig(_Frozen):
    """BLIP's ViT: square images, square patches, one [CLS] token in front.

    ``tokens`` is 577 = (384 / 16)² + 1 for the published ViT-B/16 at 384 px.
    """

    image_size: PositiveInt
    patch_size: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    mlp_width: PositiveInt

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2 + 1

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.image_size % self.patch_size or self.width % self.heads:
            raise ValueError("image_size must be a multiple of patch_size, width of heads")
        return self


class TextConfig(_Frozen):
    """BERT with cross-attention. ``vocabulary`` names the word list the token ids refer to.

    ``positions`` is the longest text in tokens. ``dropout`` acts in training only.
    """

    vocabulary: Vocabulary
    vocabulary_size: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt
    positions: PositiveInt = 512
    dropout: float = 0.1

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class Stage1Config(_Frozen):
    """Candidate filtering: ViT, text encoder over image tokens, two projections.

    ``blip`` is the pre-trained base model: the same plus the image-text matching head.
    """

    kind: Literal["blip", "stage1"]
    vision: VisionConfig
    text: TextConfig
    embedding: PositiveInt


class Stage2Config(_Frozen):
    """Re-ranking: the same ViT, and the dual encoder.

    Layers below ``merge_from`` merge the branches' cross-attention outputs by their mean, the
    others by a linear layer of the concatenation (published: 6 of 12). ``prior`` times stage 1's
    cosine is added to a pair's score; 0 (published) scores without stage 1.
    """

    kind: Literal["stage2"]
    vision: VisionConfig
    text: TextConfig
    merge_from: int
    prior: NonNegativeFloat = 0.0


ModelConfig = Stage1Config | Stage2Config

DEMO_VISION = VisionConfig(image_size=64, patch_size=16, width=128, depth=4, heads=4, mlp_width=512)
DEMO_TEXT = TextConfig(
    vocabulary="demo",
    vocabulary_size=180,
    width=128,
    layers=3,
    heads=4,
    feed_forward=256,
    positions=64,
    dropout=0.0,
)
"""Small enough for two CPU cores. No dropout: the recipe sees each training query a few times."""

DEMO_BLIP = Stage1Config(kind="blip", vision=DEMO_VISION, text=DEMO_TEXT, embedding=64)
DEMO_MERGE_FROM = 1
"""The first half of the layers merge by the mean, as published: 1 of 3, where 6 of 12."""
