"""What scoring pairs costs, counted: FLOPs of the published loop and of the engine.

A product of [m, k] and [k, n] is 2 m k n FLOPs; nothing else is counted (norms, softmax and GELU
are under one percent). Both branches are in every count.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from cir_core.ports import Load

BRANCHES = 2
"""One from z_t, one from the text."""


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


def published_flops(sizes: Sizes, load: Load) -> float:
    """The published loop: every layer in full, and every pair projects its image itself."""
    pairs, tokens, looks = load.sums
    projecting = 4 * sizes.patches * sizes.image_width * sizes.width
    looking = 4 * sizes.patches * sizes.width
    per_layer = _self_attention(sizes, tokens, looks) + _around_images(sizes, tokens)
    per_layer += BRANCHES * (pairs * projecting + tokens * looking)
    merging = max(0, sizes.layers - sizes.merge_from) * BRANCHES * 2 * tokens * sizes.width**2
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
        flops += _around_images(sizes, pairs if last else tokens)
        flops += _looking(sizes, load.pairs if last else load.tokens)
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
    pixels, width, rows = sizes.patches * sizes.image_width, sizes.width, rows_of_image
    absorbing = rows * (width * sizes.image_width + sizes.heads * pixels)
    projecting = width * (pixels + rows * sizes.patches)
    flops: float = np.where(rows <= absorbed_rows(sizes), absorbing, projecting).sum()
    return BRANCHES * 4 * flops


def _self_attention(sizes: Sizes, tokens: float, looks: float) -> float:
    """Four linear layers of all tokens; a token looks at those of its text."""
    return BRANCHES * (8 * tokens * sizes.width**2 + 4 * looks * sizes.width)


def _firsts_attention(sizes: Sizes, texts: float, tokens: float) -> float:
    """Keys and values of all tokens; query, attention and output of each text's first alone."""
    return BRANCHES * (4 * (tokens + texts) * sizes.width**2 + 4 * tokens * sizes.width)


def _around_images(sizes: Sizes, rows: float) -> float:
    """What a layer does to each row apart from attention: query, output and feed-forward. Merging
    costs nothing more when it is fused with the outputs."""
    return BRANCHES * 4 * rows * sizes.width * (sizes.width + sizes.feed_forward)


def _head(sizes: Sizes, pairs: float, *, outputs: int) -> float:
    return 2 * pairs * sizes.width * (BRANCHES * sizes.width + outputs)
