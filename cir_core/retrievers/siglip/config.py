"""Sizes of SigLIP, as its ``config.json`` holds them."""

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int
from pydantic import NonNegativeInt

from cir_core.layers.token_files import FileTokenizer
from cir_core.layers.tower import reading_flops, tower_flops
from cir_core.ports import Widths
from cir_core.retrievers.weighted import Share, TowersConfig


class SiglipConfig(TowersConfig):
    """Embeddings are as wide as the image tower. ``padding`` is the token that fills a text up to
    ``positions``, and which the tower reads as any other; ``strip_punctuation``: whether texts lose
    it before they are read (SigLIP 1). ``text_weight``: as CLIP's."""

    unsaid_by_default: ClassVar = ("text_weight",)

    kind: Literal["siglip"]
    padding: NonNegativeInt
    strip_punctuation: bool
    text_weight: Share = 0.5

    @property
    def embedding(self) -> int:
        return self.vision.width

    @property
    def widths(self) -> Widths:
        return Widths(self.embedding, z_t=0, image=self.vision.tokens * self.vision.width)

    def tokenizer(self) -> FileTokenizer:
        """SigLIP, 1 and 2, was trained on lower case."""
        return FileTokenizer(
            self.tokenizer_json, lower_case=True, strip_punctuation=self.strip_punctuation
        )

    def seeing_flops(self) -> int:
        """Of one image."""
        return tower_flops(self.vision)

    def asking_flops(self, lengths: Int[np.ndarray, " query"]) -> int:
        """Of so many queries, their references seen: padding is read, so all are of one length."""
        queries, positions = len(lengths), self.text.positions
        width, tokens = self.vision.width, self.vision.tokens
        reading = reading_flops(self.text, queries * positions, queries * positions**2)
        projecting = 2 * self.text.width * self.embedding
        looking = 4 * width**2 + 4 * tokens * width**2 + 4 * tokens * width
        pooling = looking + 4 * width * self.vision.mlp_width
        return reading + queries * (projecting + pooling)
