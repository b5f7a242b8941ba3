"""SigLIP's two towers; an image is pooled by attention, a text is read with its padding."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cir_core.layers.attention import Attention
from cir_core.layers.precision import rounded_products
from cir_core.layers.tower import TextTower, Tower, TowerConfig
from cir_core.layers.transformer import Mlp
from cir_core.retrievers.siglip.config import SiglipConfig
from cir_core.retrievers.weighted import WeightedSum


class PoolingHead(nn.Module):
    """A learned query looks at all patches, and an MLP with residual follows."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width = config.width
        self.probe = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = Attention(width, config.heads, width, dropout=0.0)
        self.norm = nn.LayerNorm(width, eps=config.epsilon)
        self.mlp = Mlp(width, config.mlp_width, config.activation)

    def forward(self, states: Float[Tensor, "image token width"]) -> Float[Tensor, "image width"]:
        probes = self.probe.expand(len(states), -1, -1)
        pooled = self.attention(probes, self.attention.project(states))[:, 0]
        features: Tensor = pooled + self.mlp(self.norm(pooled))
        return features


class SiglipModel(WeightedSum):
    """A ``Retriever``, not trained for composed queries."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = Tower(config.vision)
        self.head = PoolingHead(config.vision)
        self.text = TextTower(config.text, causal=False)
        self.text_projection = nn.Linear(config.text.width, config.embedding)

    def image_features(
        self, states: Float[Tensor, "image token width"]
    ) -> Float[Tensor, "image embedding"]:
        features: Tensor = self.head(states)
        return features

    def text_features(
        self, token_ids: Sequence[Sequence[int]], device: torch.device
    ) -> Float[Tensor, "text embedding"]:
        """Of the last position, which is padding but in the longest texts: trained so."""
        positions, padding = self.config.text.positions, self.config.padding
        rows = [[*ids, *[padding] * (positions - len(ids))] for ids in token_ids]
        with rounded_products(self.precision):
            states = self.text(torch.tensor(rows, device=device))
        features: Tensor = self.text_projection(self.for_heads(states[:, -1]))
        return features
