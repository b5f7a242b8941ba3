"""The dual encoder's layers over the packed texts of many pairs: the arithmetic of the engine.

``x`` holds all branches, [branch, row, width]. Linear layers take all rows at once. Texts are kept
apart in self-attention and in looks at z_t alone; tokens do not meet each other in cross-attention,
so all that look at one image attend to it together.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cir_core.rerankers.dual.cost import Sizes
from cir_core.rerankers.dual.one_by_one import ByImage, absorb
from cir_core.rerankers.dual.packing import Looking, Texts
from cir_core.rerankers.dual.weights import EngineWeights, LayerWeights

Some = TypeVar("Some")


def attend_self(
    layer: LayerWeights,
    sizes: Sizes,
    x: Float[Tensor, "branch token width"],
    texts: Texts,
    *,
    firsts_only: bool,
) -> Float[Tensor, "branch row width"]:
    """Self-attention, residual and norm: for every token, or for each text's first."""
    asking = x.index_select(1, texts.firsts) if firsts_only else x
    seen = texts.see(sizes, layer.self_query(asking), layer.self_context(x))
    return layer.self_norm(layer.self_output(seen).add_(asking))


@dataclass(frozen=True)
class QueryContext:
    """What looks at the query see: the z_t of the packed texts, token for token; or the image
    tokens of ``references``, and which tokens, or texts' firsts, look at which."""

    z_t: Float[Tensor, "token width"] | None = None
    references: Float[Tensor, "reference patch image_width"] | None = None
    of_tokens: ByImage | None = None
    of_texts: ByImage | None = None


def attend_others(
    layer: LayerWeights,
    sizes: Sizes,
    x: Float[Tensor, "branch row width"],
    texts: Texts,
    rows: Looking,
    image_tokens: Float[Tensor, "image patch image_width"],
    own: QueryContext,
) -> Float[Tensor, "branch row width"]:
    """Looks of every row at its image, and at its query; merge, residual and norm."""
    asking = layer.look_query(x.expand(sizes.looks, -1, -1))  # one branch may look twice
    mine = _see_query(layer, sizes, asking[:1], texts, own)
    asking = rows.together(asking)
    seen = rows.see(sizes, layer.image_context, asking, image_tokens)
    del asking  # the next products have its memory
    if mine is not None:
        seen[:, 0] = rows.together(mine).view_as(seen[:, 0])
    return layer.look_norm(x + rows.apart(_merged(layer, seen)))


def feed_forward(
    layer: LayerWeights, x: Float[Tensor, "branch row width"]
) -> Float[Tensor, "branch row width"]:
    """The MLP that all branches share, with residual and norm."""
    flat = x.flatten(0, 1)
    return layer.norm(layer.contract(_gelu(layer.expand(flat))).add_(flat)).view_as(x)


def read_scores(
    weights: EngineWeights, x: Float[Tensor, "branch pair width"]
) -> Float[Tensor, " pair"]:
    """The head's scores of all branches' first tokens, in fp32."""
    return weights.output(functional.relu(weights.hidden(head_reads(x))))[:, 0]


def head_reads(
    x: Float[Tensor, "branch pair width"],
) -> Float[Tensor, "pair branches_width"]:
    """Branch beside branch, in fp32."""
    return x.transpose(0, 1).flatten(1).float()


def _merged(
    layer: LayerWeights, seen: Float[Tensor, "row look head channel"]
) -> Float[Tensor, "*branch row width"]:
    """What is added to all branches, or to each."""
    if layer.look_output.bias.dim() == 1:
        return layer.look_output(seen.flatten(1))
    return layer.look_output(seen.flatten(2).transpose(0, 1))


def _see_query(
    layer: LayerWeights,
    sizes: Sizes,
    asking: Float[Tensor, "1 row width"],
    texts: Texts,
    own: QueryContext,
) -> Float[Tensor, "1 row width"] | None:
    """What the first look sees where it is at the query: in its text's z_t, or in its reference."""
    if own.z_t is not None:
        context = functional.linear(own.z_t, _there(layer.z_t_context))
        return texts.see(sizes, asking, context[None])
    if own.references is not None:
        of_texts = asking.shape[1] == len(texts.firsts)
        looking = _there(own.of_texts if of_texts else own.of_tokens)
        return _see_references(layer, sizes, asking, looking, own.references)
    return None


def _see_references(
    layer: LayerWeights,
    sizes: Sizes,
    asking: Float[Tensor, "1 row width"],
    looking: ByImage,
    references: Float[Tensor, "reference patch image_width"],
) -> Float[Tensor, "1 row width"]:
    """What each row sees in its reference. Those of one query are few in a block, so that moving
    the projections to them (``absorb``) is less work."""
    queries = looking.together(asking).unflatten(-1, (sizes.heads, -1))
    seen, context = torch.empty_like(queries), _there(layer.reference_context)
    for reference, mine in looking:
        some = queries[:, mine].transpose(1, 2)
        seen[:, mine] = absorb(context, some, references[reference]).transpose(1, 2)
    return looking.apart(seen.flatten(2))


def _there(what: Some | None) -> Some:
    """Weights and contexts are there for the looks that a variant has."""
    assert what is not None
    return what


def _gelu(x: Tensor) -> Tensor:
    """In place: the hidden units are the largest tensor of all."""
    return torch.ops.aten.gelu_(x)
