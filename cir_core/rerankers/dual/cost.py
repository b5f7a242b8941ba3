"""What scoring pairs costs, counted: FLOPs of the published loop and of the engine.

A product of [m, k] and [k, n] is 2 m k n FLOPs; nothing else is counted (norms, softmax and GELU
are under one percent). All branches are in every count.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from cir_core.ports import Load
from cir_core.rerankers.dual.variant import PAPERS, Context, Variant


@dataclass(frozen=True)
class Sizes:
    """Those of a stage 2 model that its work depends on."""

    width: int
    heads: int
    feed_forward: int
    layers: int
    merge_from: int
    image_width: int
    patches: int
    variant: Variant = PAPERS

    @property
    def branches(self) -> int:
        return len(self.variant.beginnings)

    @property
    def looks(self) -> int:
        return len(self.variant.looks)

    def looks_at(self, context: Context) -> int:
        """How many of them do."""
        return sum(look.at == context for look in self.variant.looks)


def published_flops(sizes: Sizes, load: Load) -> float:
    """The published loop: every layer in full, and every pair projects its images itself."""
    pairs, tokens, looks = load.sums
    projecting = 4 * sizes.patches * sizes.image_width * sizes.width
    looking = 4 * sizes.patches * sizes.width
    at_images = sizes.looks_at("candidate") + sizes.looks_at("reference")
    per_layer = _self_attention(sizes, tokens, looks) + _around_looks(sizes, tokens)
    per_layer += at_images * (pairs * projecting + tokens * looking)
    per_layer += sizes.looks_at("z_t") * 4 * sizes.width * (tokens * sizes.width + looks)
    merging = max(0, sizes.layers - sizes.merge_from) * sizes.looks * 2 * tokens * sizes.width**2
    merging *= sizes.variant.merges
    return sizes.layers * per_layer + merging + _head(sizes, pairs, outputs=2)


def begin_flops(sizes: Sizes, lengths: Int[np.ndarray, " query"]) -> float:
    """What the engine does once per query: layer 0's self-attention."""
    return _self_attention(sizes, lengths.sum(), (lengths**2).sum())


def engine_flops(sizes: Sizes, load: Load) -> float:
    """The engine, its queries begun (``begin_flops``) and every image in one block."""
    pairs, tokens, looks = load.sums
    flops = _head(sizes, pairs, outputs=1)
    for layer in range(sizes.layers):
        last = layer == sizes.layers - 1
        if layer > 0 and last:
            flops += _firsts_attention(sizes, pairs, tokens)
        elif layer > 0:
            flops += _self_attention(sizes, tokens, looks)
        flops += _around_looks(sizes, pairs if last else tokens)
        flops += _looking(sizes, load.pairs if last else load.tokens)
        flops += sizes.looks_at("reference") * _absorbing(sizes, pairs if last else tokens)
        seen = tokens * sizes.width + (tokens if last else looks)
        flops += sizes.looks_at("z_t") * 4 * sizes.width * seen
    return flops


def absorbed_rows(sizes: Sizes) -> int:
    """Up to how many tokens look at an image itself, since that is less work than projecting it to
    keys and values for them (``_looking``); 62 at the published sizes.

    Were heads so few and images so narrow that it always is, as many as an image has patches.
    """
    pixels = sizes.patches * sizes.image_width
    dearer = sizes.heads * pixels - sizes.patches * sizes.width + sizes.width * sizes.image_width
    return (sizes.width * pixels - 1) // dearer if dearer > 0 else sizes.patches


def _looking(sizes: Sizes, rows_of_image: Shaped[np.ndarray, " image"]) -> float:
    """Cross-attention of some tokens to each image: projecting the image to keys and values and
    attending over channels; or projecting the queries and what they see, and attending over the
    image's width once a head. Of no tokens neither is done."""
    pixels, rows = sizes.patches * sizes.image_width, rows_of_image
    projecting = 4 * sizes.width * (pixels + rows * sizes.patches)
    absorbs = rows <= absorbed_rows(sizes)
    flops: float = np.where(absorbs, _absorbing(sizes, rows), projecting).sum()
    return sizes.looks_at("candidate") * flops


def _absorbing(sizes: Sizes, rows: Any) -> Any:
    """Of one look of so many tokens, projected themselves instead of what they look at."""
    pixels = sizes.patches * sizes.image_width
    return 4 * rows * (sizes.width * sizes.image_width + sizes.heads * pixels)


def _self_attention(sizes: Sizes, tokens: float, looks: float) -> float:
    """Four linear layers of all tokens; a token looks at those of its text."""
    return sizes.branches * (8 * tokens * sizes.width**2 + 4 * looks * sizes.width)


def _firsts_attention(sizes: Sizes, texts: float, tokens: float) -> float:
    """Keys and values of all tokens; query, attention and output of each text's first alone."""
    return sizes.branches * (4 * (tokens + texts) * sizes.width**2 + 4 * tokens * sizes.width)


def _around_looks(sizes: Sizes, rows: float) -> float:
    """What a layer does to each row apart from attention: a query and an output a look, and a
    feed-forward a branch. Merging costs nothing more when it is fused with the outputs."""
    width, hidden = sizes.width, sizes.feed_forward
    return 4 * rows * width * (sizes.looks * width + sizes.branches * hidden)


def _head(sizes: Sizes, pairs: float, *, outputs: int) -> float:
    return 2 * pairs * sizes.width * (sizes.branches * sizes.width + outputs)
