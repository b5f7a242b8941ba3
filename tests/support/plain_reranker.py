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
    candidate, text = image_tokens, plain_text(state, token_ids)
    looks = [(0, candidate), (1, candidate)]
    return plain_variant(state, heads=heads, branches=[z_t, text], looks=looks)


def plain_states(
    state: Mapping[str, Tensor],
    *,
    heads: int,
    layers: int,
    z_t: Tensor,
    token_ids: Sequence[int],
    image_tokens: Tensor,
) -> Tensor:
    """Of one pair after so many layers, what a head would read: each branch's first token, side by
    side."""
    plain = _plain(state, heads)
    branches = [z_t.double(), plain.embed(token_ids)]
    looks = [(0, image_tokens.double()), (1, image_tokens.double())]
    return plain.states(branches, looks, layers, meet=True)


def plain_text(state: Mapping[str, Tensor], token_ids: Sequence[int]) -> Tensor:
    """What a branch that starts from the text starts from."""
    return _plain(state, 1).embed(token_ids)


def plain_variant(
    state: Mapping[str, Tensor],
    *,
    heads: int,
    branches: Sequence[Tensor],
    looks: Sequence[tuple[int, Tensor]],
    meet_in_layers: bool = True,
) -> float:
    """Score of one pair: what each branch starts from [token width]; and for each look, which
    branch looks at what [context width]."""
    seen = [(branch, context.double()) for branch, context in looks]
    started = [branch.double() for branch in branches]
    return _plain(state, heads).score(started, seen, meet_in_layers)


def _plain(state: Mapping[str, Tensor], heads: int) -> "_Plain":
    return _Plain({name: tensor.double() for name, tensor in state.items()}, heads)


@dataclass(frozen=True)
class _Plain:
    weights: Mapping[str, Tensor]
    heads: int

    def score(self, branches: list[Tensor], looks: list[tuple[int, Tensor]], meet: bool) -> float:
        layers = len({name.split(".")[1] for name in self.weights if name.startswith("layers.")})
        states = self.states(branches, looks, layers, meet)
        hidden = self.linear("score_head.hidden", states[None]).clamp(min=0)
        return float(self.linear("score_head.output", hidden)[0, 0])

    def states(
        self, branches: list[Tensor], looks: list[tuple[int, Tensor]], layers: int, meet: bool
    ) -> Tensor:
        for index in range(layers):
            branches = self.layer(f"layers.{index}", branches, looks, meet)
        return torch.cat([branch[0] for branch in branches])

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        words = [self.weights["embeddings.word.weight"][token] for token in token_ids]
        places = [self.weights["embeddings.position.weight"][at] for at in range(len(token_ids))]
        return self.norm("embeddings.norm", torch.stack(words) + torch.stack(places))

    def layer(
        self, layer: str, branches: list[Tensor], looks: list[tuple[int, Tensor]], meet: bool
    ) -> list[Tensor]:
        # each branch looks at itself
        own = [
            self.norm(
                f"{layer}.self_norm.{n}", x + self.attend(f"{layer}.self_attention.{n}", x, x)
            )
            for n, x in enumerate(branches)
        ]
        # then at images, or at z_t; what all saw is merged, and added to each branch's own residual
        seen = [
            self.attend(f"{layer}.cross_attention.{n}", own[branch], context)
            for n, (branch, context) in enumerate(looks)
        ]
        if f"{layer}.merge.weight" in self.weights:
            added = [self.linear(f"{layer}.merge", torch.cat(seen, dim=1))] * len(own)
        elif meet:
            added = [torch.stack(seen).mean(dim=0)] * len(own)
        else:
            added = seen
        # one feed-forward serves all
        return [
            self.feed_forward(
                f"{layer}.feed_forward", self.norm(f"{layer}.cross_norm.{n}", x + more)
            )
            for n, (x, more) in enumerate(zip(own, added, strict=True))
        ]

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
