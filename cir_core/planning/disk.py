"""What the disk that a run takes depends on; each stage says how much is its own."""

from dataclasses import dataclass
from typing import Self

from cir_core.layers.config import Stage1Config, Vocabulary

FLOAT = 4
"""Bytes of a number in embeddings and z_t, which are stored in fp32."""


@dataclass(frozen=True)
class Counts:
    """``tokens`` is the length of all modification texts, [ENC] and [SEP] included; ``pairs`` the
    candidates of all queries in all pools; ``kept`` the images whose tokens are kept; ``ranked``
    the pairs that are written as files to take away, too."""

    images: int
    queries: int
    tokens: int
    pairs: int
    kept: int = 0
    ranked: int = 0


@dataclass(frozen=True)
class Widths:
    """Of the model: its embeddings, its z_t, all tokens of an image, and the words that texts are
    cut into."""

    embedding: int
    text: int
    image: int
    vocabulary: Vocabulary

    @classmethod
    def of(cls, config: Stage1Config) -> Self:
        vision, text = config.vision, config.text
        return cls(config.embedding, text.width, vision.tokens * vision.width, text.vocabulary)


PUBLISHED = Widths(embedding=256, text=768, image=577 * 768, vocabulary="bert-base-uncased")
