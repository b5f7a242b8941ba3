"""The dual encoder's layers over the packed texts of many pairs: the arithmetic of the engine.

``x`` holds both branches, [branch, row, width]. Linear layers take all rows at once. Texts are kept
apart in self-attention alone, where those of one length are attended together; tokens do not meet
each other in cross-attention, so all that look at one image attend to it together.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cir_core.rerankers.dual.cost import BRANCHES, Sizes, absorbed_rows
from cir_core.rerankers.dual.packing import ByImage, Group, Texts
from cir_core.rerankers.dual.weights import EngineWeights, LayerWeights


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
    seen = _see_texts(layer, sizes, asking, x, texts)
    return layer.self_norm(layer.self_output(seen).add_(asking))


def attend_images(
    layer: LayerWeights,
    sizes: Sizes,
    x: Float[Tensor, "branch row width"],
    rows: ByImage,
    image_tokens: Float[Tensor, "image patch image_width"],
) -> Float[Tensor, "branch row width"]:
    """Cross-attention of every row to its image, merge, residual and norm."""
    merged = rows.apart(layer.image_output(_see_images(layer, sizes, x, rows, image_tokens)))
    return layer.image_norm(x + merged)


def feed_forward(
    layer: LayerWeights, x: Float[Tensor, "branch row width"]
) -> Float[Tensor, "branch row width"]:
    """The MLP that both branches share, with residual and norm."""
    flat = x.flatten(0, 1)
    return layer.norm(layer.contract(_gelu(layer.expand(flat))).add_(flat)).view_as(x)


def read_scores(
    weights: EngineWeights, x: Float[Tensor, "branch pair width"]
) -> Float[Tensor, " pair"]:
    """The head's scores of the two branches' first tokens, in fp32."""
    hidden = functional.relu(weights.hidden(x.transpose(0, 1).flatten(1).float()))
    return weights.output(hidden)[:, 0]


def _see_texts(
    layer: LayerWeights,
    sizes: Sizes,
    asking: Float[Tensor, "branch row width"],
    x: Float[Tensor, "branch token width"],
    texts: Texts,
) -> Float[Tensor, "branch row width"]:
    """What the rows that ask, all tokens or each text's first, see in their own text."""
    queries = layer.self_query(asking).unflatten(-1, (sizes.heads, -1))
    context = layer.self_context(x).unflatten(-1, (2, sizes.heads, -1))
    seen = torch.empty_like(queries)
    for group in texts.groups:
        rows = group.tokens if asking is x else group.texts
        for branch in range(BRANCHES):
            keys, values = _each(context[branch, group.tokens], group).permute(2, 0, 3, 1, 4)
            found = functional.scaled_dot_product_attention(
                _each(queries[branch, rows], group).transpose(1, 2), keys, values, scale=1.0
            )
            _each(seen[branch, rows], group).copy_(found.transpose(1, 2))
    return seen.flatten(2)


def _see_images(
    layer: LayerWeights,
    sizes: Sizes,
    x: Float[Tensor, "branch row width"],
    rows: ByImage,
    image_tokens: Float[Tensor, "image patch image_width"],
) -> Float[Tensor, "row both_branches"]:
    """What each row of both branches sees in its image; image by image."""
    queries = rows.together(layer.image_query(x)).unflatten(-1, (sizes.heads, -1))
    seen = queries.new_empty(queries.shape[1], BRANCHES, *queries.shape[2:])
    for image, mine in rows:
        asking = queries[:, mine].transpose(1, 2)
        see = _absorb if asking.shape[2] <= absorbed_rows(sizes) else _project
        seen[mine] = see(layer, asking, image_tokens[image]).permute(2, 0, 1, 3)
    return seen.flatten(1)


def _project(
    layer: LayerWeights,
    queries: Float[Tensor, "branch head row channel"],
    image: Float[Tensor, "patch image_width"],
) -> Float[Tensor, "branch head row channel"]:
    """Attention to one image's keys and values: softmax(q (X Wkᵀ)ᵀ) X Wvᵀ."""
    projected = functional.linear(image, layer.image_context.flatten(0, 2))
    split = projected.view(len(image), 2, BRANCHES, queries.shape[1], -1)
    keys, values = split.permute(1, 2, 3, 0, 4)
    return functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)


def _absorb(
    layer: LayerWeights,
    queries: Float[Tensor, "branch head row channel"],
    image: Float[Tensor, "patch image_width"],
) -> Float[Tensor, "branch head row channel"]:
    """The same with the projections moved to the queries: softmax((q Wk) Xᵀ) X Wvᵀ."""
    _, heads, rows, _ = queries.shape
    for_keys, for_values = layer.image_context.unflatten(2, (heads, -1))
    asking = (queries @ for_keys).view(1, 1, -1, image.shape[1])
    patches = image[None, None]
    seen = functional.scaled_dot_product_attention(asking, patches, patches, scale=1.0)
    return seen.view(BRANCHES, heads, rows, -1) @ for_values.mT


def _each(rows: Tensor, group: Group) -> Tensor:
    """The rows text by text: a view of [row, ...] as [text, row, ...]."""
    return rows.unflatten(0, (group.count, -1))


def _gelu(x: Tensor) -> Tensor:
    """In place: the hidden units are the largest tensor of all."""
    return torch.ops.aten.gelu_(x)
