"""Sizes of stage 2, as its ``config.json`` holds them."""

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int
from pydantic import NonNegativeFloat

from cir_core.layers.config import Frozen, TextConfig
from cir_core.layers.encoders import ImageConfig, image_flops
from cir_core.layers.preprocess import Preprocess
from cir_core.layers.wordpiece import Tokenizer, UnreadTexts, tokenizer_of
from cir_core.ports import Load, RetrieverConfig
from cir_core.rerankers.dual.cost import Sizes, begin_flops, engine_flops, published_flops
from cir_core.rerankers.dual.variant import PAPERS, Variant


class Stage2Config(Frozen):
    """Re-ranking: the same ViT, and the dual encoder, or a ``variant`` of it.

    Layers below ``merge_from`` merge what their cross-attentions see by the mean, the others by a
    linear layer of the concatenation (published: 6 of 12). ``prior`` times stage 1's
    cosine is added to a pair's score; 0 (published) scores without stage 1.
    """

    unsaid_by_default: ClassVar = ("variant",)

    kind: Literal["stage2"]
    vision: ImageConfig
    text: TextConfig
    merge_from: int
    prior: NonNegativeFloat = 0.0
    variant: Variant = PAPERS

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

    def tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.text) if self.variant.text else UnreadTexts(self.text.vocabulary)

    @property
    def state_width(self) -> int:
        """Of the z_t that it reads."""
        return self.text.width if self.variant.reads_z_t else 0

    @property
    def image_width(self) -> int:
        return self.vision.tokens * self.vision.width

    @property
    def reads_references(self) -> bool:
        return any(look.at == "reference" for look in self.variant.looks)

    @property
    def sizes(self) -> Sizes:
        """Those that its work depends on."""
        text, vision = self.text, self.vision
        return Sizes(
            width=text.width,
            heads=text.heads,
            feed_forward=text.feed_forward,
            layers=text.layers,
            merge_from=self.merge_from,
            image_width=vision.width,
            patches=vision.tokens,
            variant=self.variant,
        )

    def objections(self, retriever: RetrieverConfig) -> list[str]:
        """What reads z_t reads the retriever's token ids, too: words, positions and width must
        agree. Others may follow any."""
        if not self.variant.reads_z_t:
            return []
        theirs = {
            "vocabulary": retriever.vocabulary,
            "positions": retriever.positions,
            "width": retriever.widths.z_t,
        }
        ours = {
            "vocabulary": self.vocabulary,
            "positions": self.positions,
            "width": self.text.width,
        }
        return [
            f"{name} {theirs[name]} and {ours[name]}" for name in ours if theirs[name] != ours[name]
        ]

    def seeing_flops(self) -> int:
        """Of one image."""
        return image_flops(self.vision)

    def beginning_flops(self, lengths: Int[np.ndarray, " query"]) -> float:
        """Once for each query, of these lengths in tokens."""
        return begin_flops(self.sizes, lengths)

    def scoring_flops(self, load: Load) -> float:
        """Of pairs whose queries are begun."""
        return engine_flops(self.sizes, load)

    def plain_flops(self, load: Load) -> float:
        """Of the same pairs, scored as published."""
        return published_flops(self.sizes, load)


DEMO_MERGE_FROM = 1
"""The first half of the layers merge by the mean, as published: 1 of 3, where 6 of 12."""
