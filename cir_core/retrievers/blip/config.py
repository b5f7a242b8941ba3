"""Sizes of stage 1, as its ``config.json`` holds them; the published ones, and the demo's."""

from typing import Literal

import numpy as np
from jaxtyping import Int
from pydantic import PositiveInt

from cir_core.layers.config import DEMO_TEXT, DEMO_VISION, Frozen, TextConfig, VisionConfig
from cir_core.layers.encoders import ImageConfig, image_flops
from cir_core.layers.preprocess import Preprocess
from cir_core.layers.wordpiece import Tokenizer, tokenizer_of
from cir_core.ports import Widths
from cir_core.retrievers.blip.cost import fusion_flops


class Stage1Config(Frozen):
    """Candidate filtering: ViT, text encoder over image tokens, two projections.

    ``blip`` is the pre-trained base model: the same plus the image-text matching head.
    """

    kind: Literal["blip", "stage1"]
    vision: ImageConfig
    text: TextConfig
    embedding: PositiveInt

    @property
    def pictures(self) -> Preprocess:
        return self.vision.pictures

    @property
    def positions(self) -> int:
        """The longest text that it reads, in tokens."""
        return self.text.positions

    @property
    def vocabulary(self) -> str:
        """The words that its token ids mean."""
        return self.text.words

    @property
    def widths(self) -> Widths:
        return Widths(self.embedding, self.text.width, self.vision.tokens * self.vision.width)

    def tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.text)

    def seeing_flops(self) -> int:
        """Of one image."""
        return image_flops(self.vision)

    def asking_flops(self, lengths: Int[np.ndarray, " query"]) -> int:
        """Of queries of these lengths in tokens, their references seen."""
        return fusion_flops(self.text, self.vision, self.embedding, lengths)


PUBLISHED = Stage1Config(
    kind="stage1",
    vision=VisionConfig(
        image_size=384, patch_size=16, width=768, depth=12, heads=12, mlp_width=3072
    ),
    text=TextConfig(
        vocabulary="bert-base-uncased",
        vocabulary_size=30524,
        width=768,
        layers=12,
        heads=12,
        feed_forward=3072,
    ),
    embedding=256,
)

DEMO_BLIP = Stage1Config(kind="blip", vision=DEMO_VISION, text=DEMO_TEXT, embedding=64)
