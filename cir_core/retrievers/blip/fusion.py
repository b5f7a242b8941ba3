"""Stage 1, candidate filtering (section 3.2 of the paper): image tokens and text to z_t."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cir_core.layers.attention import (
    BERT_EPSILON,
    Attention,
    FeedForward,
    TextEmbeddings,
    module_list,
    run_layer,
    token_mask,
)
from cir_core.layers.config import TextConfig
from cir_core.layers.encoders import image_encoder, whole_image
from cir_core.layers.precision import CastsText, rounded_products
from cir_core.layers.vision import FrozenEncoder
from cir_core.layers.wordpiece import pad_tokens
from cir_core.ports import Asked
from cir_core.retrievers.blip.config import Stage1Config

INITIAL_TEMPERATURE = 0.07
"""Of the contrastive loss; learned, and part of every published checkpoint."""


class FusionLayer(nn.Module):
    """Self-attention over the text, cross-attention to image tokens, feed-forward; post-norm."""

    def __init__(self, text: TextConfig, image_width: int) -> None:
        super().__init__()
        width, heads, dropout = text.width, text.heads, text.dropout
        self.self_attention = Attention(width, heads, width, dropout)
        self.self_norm = nn.LayerNorm(width, eps=BERT_EPSILON)
        self.cross_attention = Attention(width, heads, image_width, dropout)
        self.cross_norm = nn.LayerNorm(width, eps=BERT_EPSILON)
        self.feed_forward = FeedForward(width, text.feed_forward, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        mask: Bool[Tensor, "batch 1 1 token"],
        image_tokens: Float[Tensor, "batch patch image_width"] | None,
    ) -> Float[Tensor, "batch token width"]:
        attended = self.self_attention(x, self.self_attention.project(x), mask)
        x = self.self_norm(x + self.dropout(attended))
        if image_tokens is not None:
            attended = self.cross_attention(x, self.cross_attention.project(image_tokens))
            x = self.cross_norm(x + self.dropout(attended))
        return self.feed_forward(x)


class FusionEncoder(nn.Module):
    """BLIP's text encoder; without image tokens it is plain BERT (as in pre-training).

    Training may set ``checkpointing``, which trades time for memory.
    """

    def __init__(self, text: TextConfig, image_width: int) -> None:
        super().__init__()
        self.checkpointing = False
        self.embeddings = TextEmbeddings(
            text.vocabulary_size, text.width, text.positions, text.dropout
        )
        self.layers = module_list(FusionLayer(text, image_width) for _ in range(text.layers))

    def forward(
        self,
        token_ids: Int[Tensor, "batch token"],
        lengths: Int[Tensor, " batch"],
        image_tokens: Float[Tensor, "batch patch image_width"] | None,
    ) -> Float[Tensor, "batch token width"]:
        """Last hidden state. Rows beyond a text's length hold no meaning: never read them."""
        mask = token_mask(lengths, token_ids.shape[1])
        x = self.embeddings(token_ids)
        for layer in self.layers:
            x = run_layer(layer, x, mask, image_tokens, again=self.checkpointing)
        return x


class Stage1Model(CastsText):
    """ViT, fusion encoder, the two projections into the shared embedding space, temperature.

    Of kind ``blip`` it also carries the image-text matching head of the pre-trained base.
    """

    def __init__(self, config: Stage1Config) -> None:
        super().__init__()
        self.config = config
        self.vision = image_encoder(config.vision)
        self.text = FusionEncoder(config.text, config.vision.width)
        self.vision_projection = nn.Linear(config.vision.width, config.embedding)
        self.text_projection = nn.Linear(config.text.width, config.embedding)
        self.temperature = nn.Parameter(torch.tensor(INITIAL_TEMPERATURE))
        if config.kind == "blip":
            self.matching_head = nn.Linear(config.text.width, 2)

    @property
    def encoder(self) -> FrozenEncoder:
        return self.vision

    def embed(self, states: Float[Tensor, "image token width"]) -> Float[Tensor, "image embedding"]:
        return self.embed_images(self.for_heads(states))

    def ask(
        self,
        token_ids: Sequence[Sequence[int]],
        references: Float[Tensor, "query patch image_width"],
    ) -> Asked:
        texts = pad_tokens(token_ids).to(references.device)
        with rounded_products(self.precision):
            z_t = self.fuse(texts.ids, texts.lengths, self.for_text(references))
        return Asked(self.embed_queries(self.for_heads(z_t)), z_t)

    def embed_texts(self, token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "text embedding"]:
        """BLIP's unimodal mode: the text encoder without cross-attention, in which the base was
        trained to match captions with images. At its front a text has [ENC], as when it is
        composed; the published base has [CLS] there."""
        texts = pad_tokens(token_ids).to(self.text_projection.weight.device)
        with rounded_products(self.precision):
            states = self.text(texts.ids, texts.lengths, None)
        return self.embed_queries(self.for_heads(states))

    def embed_images(
        self, image_tokens: Float[Tensor, "image token width"]
    ) -> Float[Tensor, "image embedding"]:
        """Unit-length gallery embeddings from what stands for each image: [CLS]."""
        whole = whole_image(self.config.vision, image_tokens)
        return functional.normalize(self.vision_projection(whole), dim=-1)

    def fuse(
        self,
        token_ids: Int[Tensor, "query token"],
        lengths: Int[Tensor, " query"],
        reference_tokens: Float[Tensor, "query patch image_width"],
    ) -> Float[Tensor, "query token width"]:
        """z_t: the whole last hidden state of the text over the reference's image tokens."""
        z_t: Tensor = self.text(token_ids, lengths, reference_tokens)
        return z_t

    def embed_queries(
        self, z_t: Float[Tensor, "query token width"]
    ) -> Float[Tensor, "query embedding"]:
        """Unit-length query embeddings from z_t's [ENC] position."""
        return functional.normalize(self.text_projection(z_t[:, 0]), dim=-1)
