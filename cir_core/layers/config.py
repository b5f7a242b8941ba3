"""Sizes of the blocks that families share, as ``config.json`` holds them, and the demo's."""

from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cir_core.layers.preprocess import Fit, Preprocess

Vocabulary = Literal["bert-base-uncased", "demo"]

HEAD_WIDTH = 64
"""BLIP and BERT use heads of 64; the published code derives their number from the width."""


class Frozen(BaseModel):
    """A value: its fields are all that it has.

    Fields in ``unsaid_by_default`` came after models had been written: at its default such a field
    is not written, so that a model keeps its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unsaid_by_default: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        for name in self.unsaid_by_default:
            if getattr(self, name) == type(self).model_fields[name].default:
                written.pop(name, None)
        return written


class VisionConfig(Frozen):
    """A ViT: square images, square patches, one [CLS] token in front; ``fit`` says how pictures
    become square.

    ``tokens`` is 577 = (384 / 16)² + 1 for the published ViT-B/16 at 384 px.
    """

    unsaid_by_default: ClassVar = ("fit",)

    image_size: PositiveInt
    patch_size: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    mlp_width: PositiveInt
    fit: Fit = "pad"

    @property
    def pictures(self) -> Preprocess:
        return Preprocess(self.image_size, fit=self.fit)

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2 + 1

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.image_size % self.patch_size or self.width % self.heads:
            raise ValueError("image_size must be a multiple of patch_size, width of heads")
        return self


class TextConfig(Frozen):
    """BERT with cross-attention. ``vocabulary`` names the word list the token ids refer to.

    ``positions`` is the longest text in tokens. ``dropout`` acts in training only. ``marks``:
    whether punctuation is read, or replaced by spaces where BLIP's training code does so.
    """

    unsaid_by_default: ClassVar = ("marks",)

    vocabulary: Vocabulary
    vocabulary_size: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt
    positions: PositiveInt = 512
    dropout: float = 0.1
    marks: Literal["read", "blanked"] = "read"

    @property
    def words(self) -> str:
        """What token ids mean."""
        return f"{self.vocabulary} ({self.vocabulary_size} words)"

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


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
