"""CLIP's two towers and their projections; a weighted sum of both, or textual inversion."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cir_core.layers.precision import CastsText, rounded_products
from cir_core.layers.tower import TextTower, Tower
from cir_core.layers.wordpiece import TokenBatch, pad_tokens
from cir_core.ports import Asked
from cir_core.retrievers.clip.config import ClipConfig, ClipTowers, InversionConfig
from cir_core.retrievers.weighted import WeightedSum


class Towers(CastsText):
    """Both towers with their projections. A text's features are those of its last token, which
    alone has seen all others."""

    def __init__(self, config: ClipTowers) -> None:
        super().__init__()
        self.vision = Tower(config.vision)
        self.text = TextTower(config.text, causal=True)
        self.vision_projection = nn.Linear(config.vision.width, config.embedding, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.embedding, bias=False)

    @property
    def encoder(self) -> Tower:
        return self.vision

    def image_features(
        self, states: Float[Tensor, "image token width"]
    ) -> Float[Tensor, "image embedding"]:
        """Of [CLS], not of unit length."""
        features: Tensor = self.vision_projection(states[:, 0])
        return features

    def last(
        self, states: Float[Tensor, "text token width"], lengths: Int[Tensor, " text"]
    ) -> Float[Tensor, "text embedding"]:
        """Of each text's last token, not of unit length."""
        each = torch.arange(len(states), device=states.device)
        features: Tensor = self.text_projection(self.for_heads(states[each, lengths - 1]))
        return features


class ClipModel(Towers, WeightedSum):
    """A ``Retriever``, not trained for composed queries."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config)
        self.config = config

    def text_features(
        self, token_ids: Sequence[Sequence[int]], device: torch.device
    ) -> Float[Tensor, "text embedding"]:
        texts = pad_tokens(token_ids).to(device)
        with rounded_products(self.precision):
            states = self.text(texts.ids)
        return self.last(states, texts.lengths)


class Phi(nn.Module):
    """An image's features to a word: three layers, GELU between."""

    def __init__(self, features: int, hidden: int, words: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, words)

    def forward(self, features: Float[Tensor, "image feature"]) -> Float[Tensor, "image word"]:
        hidden = functional.gelu(self.second(functional.gelu(self.first(features))))
        word: Tensor = self.third(hidden)
        return word


class InversionModel(Towers):
    """A ``Retriever``: the reference becomes a word of the prompt, as SEARLE and LinCIR do it."""

    def __init__(self, config: InversionConfig) -> None:
        super().__init__(config)
        self.config = config
        self.phi = Phi(config.embedding, config.hidden, config.text.width)

    def embed(self, states: Float[Tensor, "image token width"]) -> Float[Tensor, "image embedding"]:
        return functional.normalize(self.image_features(self.for_heads(states)), dim=-1)

    def ask(
        self,
        token_ids: Sequence[Sequence[int]],
        references: Float[Tensor, "query token width"],
    ) -> Asked:
        texts = pad_tokens(token_ids).to(references.device)
        words = self.text.word(texts.ids)
        pseudo = self.phi(self.image_features(self.for_heads(references)))
        words = torch.where(self._place(texts)[..., None], self.for_text(pseudo)[:, None], words)
        with rounded_products(self.precision):
            states = self.text.read(words)
        features = self.last(states, texts.lengths)
        return Asked(functional.normalize(features, dim=-1), None)

    def _place(self, texts: TokenBatch) -> Tensor:
        """True at the first "$" of each text: the prompt's, since it comes before the caption."""
        here = texts.ids == self.config.pseudo_word
        return here & (here.cumsum(dim=1) == 1)
