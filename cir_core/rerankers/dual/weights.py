"""Stage 2's weights as the engine multiplies them: fused where several products are one.

Four identities leave fewer or larger products of the same numbers:

- All keys and values of a layer are linear in the same image tokens: one product.
- A key's bias adds the same to all of a token's logits, which softmax does not see: left out.
- A value's bias passes through the attention's mean unchanged: it moves to the output's bias.
- Output projections and merge are linear and follow each other: they become one product of all
  looks' attended values, in layers that merge by a linear layer as in those that merge by mean.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cir_core.layers.attention import BERT_EPSILON, Attention
from cir_core.rerankers.dual.model import DualLayer, Stage2Model
from cir_core.rerankers.dual.variant import Context


@dataclass(frozen=True)
class Linear:
    """x Wᵀ + b; for each branch its own where the weights have a leading dimension."""

    weight: Float[Tensor, "*branch out in"]
    bias: Float[Tensor, "*branch out"]

    def __call__(self, x: Float[Tensor, "*branch row in"]) -> Float[Tensor, "*branch row out"]:
        if self.bias.dim() == 1:
            return functional.linear(x, self.weight, self.bias)
        out = x.new_empty(*x.shape[:2], self.weight.shape[1])
        for of_branch in zip(self.bias, x, self.weight.mT, out, strict=True):
            bias, rows, weight, found = of_branch
            torch.addmm(bias, rows, weight, out=found)  # a product of all would copy biases first
        return out


@dataclass(frozen=True)
class Norm:
    """LayerNorm over the last dimension; for each branch its own, as in ``Linear``."""

    weight: Float[Tensor, "*branch width"]
    bias: Float[Tensor, "*branch width"]

    def __call__(self, x: Float[Tensor, "*branch row width"]) -> Float[Tensor, "*branch row width"]:
        if self.bias.dim() == 1:
            return _layer_norm(x, self.weight, self.bias)
        of_branches = zip(x, self.weight, self.bias, strict=True)
        return torch.stack([_layer_norm(*each) for each in of_branches])


def _layer_norm(
    x: Float[Tensor, "*branch row width"], weight: Float[Tensor, " width"], bias: Tensor
) -> Float[Tensor, "*branch row width"]:
    return functional.layer_norm(x, weight.shape, weight, bias, BERT_EPSILON)


@dataclass(frozen=True)
class LayerWeights:
    """One layer of all branches. What makes queries scales them by 1 / √channels."""

    self_query: Linear
    self_context: Linear
    """Keys, then values."""
    self_output: Linear
    self_norm: Norm
    look_query: Linear
    """For each look its own."""
    image_context: Float[Tensor, "key_or_value look width image_width"]
    """Of the looks at candidates."""
    reference_context: Float[Tensor, "key_or_value 1 width image_width"] | None
    z_t_context: Float[Tensor, "key_and_value width"] | None
    look_output: Linear
    """From all looks' attended values, side by side, to what they merge to; for each look its own
    where layers do not merge."""
    look_norm: Norm
    expand: Linear
    contract: Linear
    norm: Norm


@dataclass(frozen=True)
class EngineWeights:
    """The dual encoder without its ViT, on one device and, but for the score head (``hidden``,
    ``output``: fp32), of one type."""

    word: Float[Tensor, "vocabulary width"]
    position: Float[Tensor, "position width"]
    embedding_norm: Norm
    layers: Sequence[LayerWeights]
    hidden: Linear
    output: Linear
    """The first of the head's two outputs, which is the score."""


@torch.no_grad()
def prepare_weights(
    model: Stage2Model, device: torch.device, dtype: torch.dtype = torch.float32
) -> EngineWeights:
    """Fused copies of the model's weights; the model itself stays as it is."""
    put, exactly = _Put(device, dtype), _Put(device, torch.float32)
    embeddings, head = model.embeddings, model.score_head
    return EngineWeights(
        word=put.tensor(embeddings.word.weight),
        position=put.tensor(embeddings.position.weight),
        embedding_norm=put.norm(embeddings.norm),
        layers=[put.layer(layer) for layer in model.layers],
        hidden=exactly.linear(head.hidden.weight, head.hidden.bias),
        output=exactly.linear(head.output.weight[:1], head.output.bias[:1]),
    )


@dataclass(frozen=True)
class _Put:
    """Where copies go."""

    device: torch.device
    dtype: torch.dtype

    def tensor(self, source: Tensor) -> Tensor:
        return source.to(self.device, self.dtype, copy=True)

    def linear(self, weight: Tensor, bias: Tensor) -> Linear:
        return Linear(self.tensor(weight), self.tensor(bias))

    def norm(self, norm: nn.LayerNorm) -> Norm:
        return Norm(self.tensor(norm.weight), self.tensor(norm.bias))

    def branch_norms(self, norms: Sequence[nn.LayerNorm]) -> Norm:
        weight, bias = _stack(one.weight for one in norms), _stack(one.bias for one in norms)
        return Norm(self.tensor(weight), self.tensor(bias))

    def queries(self, attentions: Sequence[Attention]) -> Linear:
        weight = _stack(each.query.weight for each in attentions)
        bias = _stack(each.query.bias for each in attentions)
        channels = weight.shape[1] // attentions[0].heads
        return self.linear(weight / channels**0.5, bias / channels**0.5)

    def layer(self, layer: DualLayer) -> LayerWeights:
        own, looks, feed_forward = layer.self_attention, layer.cross_attention, layer.feed_forward
        reference, z_t = _context(layer, "reference"), _context(layer, "z_t")
        return LayerWeights(
            self_query=self.queries(own),
            self_context=self.linear(
                _stack(torch.cat([each.key.weight, each.value.weight]) for each in own),
                _stack(torch.cat([each.key.bias, each.value.bias]) for each in own),
            ),
            self_output=self.linear(
                _stack(each.output.weight for each in own), _stack(each.output.bias for each in own)
            ),
            self_norm=self.branch_norms(layer.self_norm),
            look_query=self.queries(looks),
            image_context=self.tensor(_context(layer, "candidate")),
            reference_context=self.tensor(reference) if len(reference[0]) else None,
            z_t_context=self.tensor(z_t.flatten(0, 2)) if len(z_t[0]) else None,
            look_output=self.linear(*(_merging_output if layer.merges else _outputs)(layer)),
            look_norm=self.branch_norms(layer.cross_norm),
            expand=self.linear(feed_forward.expand.weight, feed_forward.expand.bias),
            contract=self.linear(feed_forward.contract.weight, feed_forward.contract.bias),
            norm=self.norm(feed_forward.norm),
        )


def _context(layer: DualLayer, at: Context) -> Float[Tensor, "key_or_value look width context"]:
    """What projects the context of those looks to keys and values; of no looks, empty."""
    looking = [
        each for look, each in zip(layer.looks, layer.cross_attention, strict=True) if look.at == at
    ]
    if not looking:
        return torch.empty(2, 0)
    keys = _stack(each.key.weight for each in looking)
    return torch.stack([keys, _stack(each.value.weight for each in looking)])


def _merging_output(layer: DualLayer) -> tuple[Tensor, Tensor]:
    """Output projections and merge in one: weight [width, look * width] and bias [width].

    Products are taken in float64, so that nothing is lost but the rounding of the result.
    """
    width, looks = layer.feed_forward.norm.weight.shape[0], len(layer.looks)
    identity = torch.eye(width, dtype=torch.float64, device=layer.feed_forward.norm.weight.device)
    if layer.merge is None:
        merges, bias = [identity / looks] * looks, identity.new_zeros(width)
    else:
        merges = list(layer.merge.weight.double().chunk(looks, dim=1))
        bias = layer.merge.bias.double()
    weights = []
    for merge, attention in zip(merges, layer.cross_attention, strict=True):
        weights.append(merge @ attention.output.weight.double())
        bias = bias + merge @ _biases(attention)
    return torch.cat(weights, dim=1), bias


def _outputs(layer: DualLayer) -> tuple[Tensor, Tensor]:
    """Output projections, for each look its own: [look, width, width], and biases [look, width]."""
    looks = layer.cross_attention
    return _stack(each.output.weight for each in looks), _stack(map(_biases, looks))


def _biases(attention: Attention) -> Float[Tensor, " width"]:
    """The output's, and the values' as they arrive there, in float64."""
    output = attention.output
    return output.bias.double() + output.weight.double() @ attention.value.bias.double()


def _stack(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(tensors))
