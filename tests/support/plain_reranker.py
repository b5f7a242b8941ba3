"""The published dual encoder for one query and one candidate, written to be read, not to be run.

No batch, no padding, no mask, no fused attention, nothing shared between pairs; float64. It knows
of the model only the names of its tensors, and was written from the description of the published
method, so that two implementations check each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LAYER_NORM_EPSILON = 1e-12


def plain_score(
    state: Mapping[str, Tensor],
    *,
    heads: int,
    z_t: Tensor,
    token_ids: Sequence[int],
    image_tokens: Tensor,
) -> float:
    """Score of one pair from z_t [token width], its token ids and image tokens [patch width]."""
    model = _Plain({name: tensor.double() for name, tensor in state.items()}, heads)
    return model.score(z_t.double(), token_ids, image_tokens.double())


@dataclass(frozen=True)
class _Plain:
    weights: Mapping[str, Tensor]
    heads: int

    def score(self, z_t: Tensor, token_ids: Sequence[int], image: Tensor) -> float:
        a, b = z_t, self.embed(token_ids)
        layers = len({name.split(".")[1] for name in self.weights if name.startswith("layers.")})
        for index in range(layers):
            a, b = self.layer(f"layers.{index}", a, b, image)
        first_places = torch.cat([a[:1], b[:1]], dim=1)
        hidden = self.linear("score_head.hidden", first_places).clamp(min=0)
        return float(self.linear("score_head.output", hidden)[0, 0])

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        words = [self.weights["embeddings.word.weight"][token] for token in token_ids]
        places = [self.weights["embeddings.position.weight"][at] for at in range(len(token_ids))]
        return self.norm("embeddings.norm", torch.stack(words) + torch.stack(places))

    def layer(self, layer: str, a: Tensor, b: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        # each branch looks at itself
        a = self.norm(f"{layer}.self_norm.0", a + self.attend(f"{layer}.self_attention.0", a, a))
        b = self.norm(f"{layer}.self_norm.1", b + self.attend(f"{layer}.self_attention.1", b, b))
        # then at the candidate; what both saw is merged, and added to each branch's own residual
        seen_by_a = self.attend(f"{layer}.cross_attention.0", a, image)
        seen_by_b = self.attend(f"{layer}.cross_attention.1", b, image)
        if f"{layer}.merge.weight" in self.weights:
            merged = self.linear(f"{layer}.merge", torch.cat([seen_by_a, seen_by_b], dim=1))
        else:
            merged = (seen_by_a + seen_by_b) / 2
        a = self.norm(f"{layer}.cross_norm.0", a + merged)
        b = self.norm(f"{layer}.cross_norm.1", b + merged)
        # one feed-forward serves both
        return self.feed_forward(f"{layer}.feed_forward", a), self.feed_forward(
            f"{layer}.feed_forward", b
        )

    def attend(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        """Per head softmax(q kᵀ / √channels) v, the heads side by side, then a linear layer."""
        queries = self.linear(f"{name}.query", x).chunk(self.heads, dim=1)
        keys = self.linear(f"{name}.key", context).chunk(self.heads, dim=1)
        values = self.linear(f"{name}.value", context).chunk(self.heads, dim=1)
        seen = []
        for query, key, value in zip(queries, keys, values, strict=True):
            weight = (query @ key.T / query.shape[1] ** 0.5).exp()
            seen.append(weight / weight.sum(dim=1, keepdim=True) @ value)
        return self.linear(f"{name}.output", torch.cat(seen, dim=1))

    def feed_forward(self, name: str, x: Tensor) -> Tensor:
        inner = self.linear(f"{name}.expand", x)
        gelu = inner * (1 + torch.erf(inner / 2**0.5)) / 2
        return self.norm(f"{name}.norm", x + self.linear(f"{name}.contract", gelu))

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        variance = (centred**2).mean(dim=1, keepdim=True)
        scaled = centred / (variance + LAYER_NORM_EPSILON).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
