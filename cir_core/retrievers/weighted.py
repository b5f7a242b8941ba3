"""What retrievers share whose query is a weighted sum of an image's and a text's embedding: no
training for the task, and no z_t."""

from collections.abc import Sequence
from copy import copy
from typing import Annotated, Any, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from cir_core.layers.precision import CastsText
from cir_core.layers.preprocess import Preprocess
from cir_core.layers.token_files import WithTokenizer
from cir_core.layers.tower import TextTowerConfig, Tower, TowerConfig
from cir_core.ports import Asked

Share = Annotated[float, Field(ge=0, le=1)]


class TowersConfig(WithTokenizer):
    """Two towers that meet in a space of ``embedding`` numbers."""

    vision: TowerConfig
    text: TextTowerConfig

    @property
    def pictures(self) -> Preprocess:
        return self.vision.pictures

    @property
    def positions(self) -> int:
        """The longest text that it reads, in tokens."""
        return self.text.positions


class WeightedSum(CastsText):
    """A ``Retriever``, of which a family says how it embeds images and texts."""

    config: Any
    vision: Tower

    @property
    def encoder(self) -> Tower:
        return self.vision

    def image_features(
        self, states: Float[Tensor, "image token width"]
    ) -> Float[Tensor, "image embedding"]:
        """As the model gives them, of any length."""
        raise NotImplementedError

    def text_features(
        self, token_ids: Sequence[Sequence[int]], device: torch.device
    ) -> Float[Tensor, "text embedding"]:
        """As the model gives them, of any length."""
        raise NotImplementedError

    def embed(self, states: Float[Tensor, "image token width"]) -> Float[Tensor, "image embedding"]:
        return functional.normalize(self.image_features(self.for_heads(states)), dim=-1)

    def ask(
        self,
        token_ids: Sequence[Sequence[int]],
        references: Float[Tensor, "query token width"],
    ) -> Asked:
        """(1 - w) image + w text, both of unit length, and then so itself; w is ``text_weight``."""
        texts = self._embed_texts(token_ids, references.device)
        weighed = torch.lerp(self.embed(references), texts, self.config.text_weight)
        return Asked(functional.normalize(weighed, dim=-1), None)

    def embed_texts(self, token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "text embedding"]:
        """The text's part of a query."""
        return self._embed_texts(token_ids, self.vision.device)

    def _embed_texts(
        self, token_ids: Sequence[Sequence[int]], device: torch.device
    ) -> Float[Tensor, "text embedding"]:
        return functional.normalize(self.text_features(token_ids, device), dim=-1)

    def weighed(self, text_weight: float) -> Self:
        """The same model, which keeps its weights and shares them, with another ``text_weight``."""
        other = copy(self)
        other.config = self.config.model_copy(update={"text_weight": text_weight})
        return other
