"""Sizes of CLIP, as its ``config.json`` holds them."""

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int
from pydantic import PositiveInt

from cir_core.layers.token_files import FileTokenizer
from cir_core.layers.tower import reading_flops, tower_flops
from cir_core.ports import Widths
from cir_core.retrievers.weighted import Share, TowersConfig

TEMPLATE = "a photo of $ that {}"
"""The prompt of SEARLE and LinCIR; "$" is where the picture's word is put."""


class ClipTowers(TowersConfig):
    """What all that CLIP's towers make has in common."""

    embedding: PositiveInt

    @property
    def widths(self) -> Widths:
        return Widths(self.embedding, z_t=0, image=self.vision.tokens * self.vision.width)

    def seeing_flops(self) -> int:
        """Of one image."""
        return tower_flops(self.vision)

    def asking_flops(self, lengths: Int[np.ndarray, " query"]) -> int:
        """Of queries of these lengths in tokens, their references seen. Padding is not counted."""
        tokens, looks = int(lengths.sum()), int((lengths**2).sum())
        projecting = 2 * len(lengths) * self.embedding * (self.vision.width + self.text.width)
        return reading_flops(self.text, tokens, looks) + projecting


class ClipConfig(ClipTowers):
    """``text_weight`` is the text's share of a query, 0 (the image alone) to 1 (the text alone)."""

    unsaid_by_default: ClassVar = ("text_weight",)

    kind: Literal["clip"]
    text_weight: Share = 0.5

    def tokenizer(self) -> FileTokenizer:
        return FileTokenizer(self.tokenizer_json)


class InversionConfig(ClipTowers):
    """CLIP, and phi, which makes a word of an image's features; ``hidden`` is phi's width, and
    ``pseudo_word`` the token id of "$", whose place in the prompt that word takes."""

    kind: Literal["inversion"]
    hidden: PositiveInt
    pseudo_word: int

    def tokenizer(self) -> FileTokenizer:
        """Of whole prompts."""
        return FileTokenizer(self.tokenizer_json, template=TEMPLATE)

    def asking_flops(self, lengths: Int[np.ndarray, " query"]) -> int:
        """Of queries of these lengths in tokens, their references seen. Padding is not counted."""
        inverting = self.hidden * (self.embedding + self.hidden + self.text.width)
        return super().asking_flops(lengths) + 2 * len(lengths) * inverting
