"""What scoring pairs costs, counted: FLOPs of the published loop and of the engine.

A product of [m, k] and [k, n] is 2 m k n FLOPs; nothing else is counted (norms, softmax and GELU
are under one percent). Both branches are in every count.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Int

from cir_core.models.config import Stage2Config
from cir_core.models.reranker import BRANCHES


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

    @classmethod
    def of(cls, config: Stage2Config) -> Self:
        text, vision = config.text, config.vision
        return cls(
            width=text.width,
            heads=text.heads,
            feed_forward=text.feed_forward,
            layers=text.layers,
            merge_from=config.merge_from,
            image_width=vision.width,
            patches=vision.tokens,
        )


def published_flops(sizes: Sizes, lengths: Int[np.ndarray, " pair"]) -> int:
    """The published loop: every layer in full, and every pair projects its image itself.

    ``lengths`` are those of the pairs' texts in tokens.
    """
    texts, tokens = len(lengths), int(lengths.sum())
    projecting = 4 * sizes.patches * sizes.image_width * sizes.width
    looking = 4 * sizes.patches * sizes.width
    per_layer = _self_attention(sizes, lengths) + _around_images(sizes, tokens)
    per_layer += BRANCHES * (texts * projecting + tokens * looking)
    merging = max(0, sizes.layers - sizes.merge_from) * BRANCHES * 2 * tokens * sizes.width**2
    return sizes.layers * per_layer + merging + _head(sizes, texts, outputs=2)


def begin_flops(sizes: Sizes, lengths: Int[np.ndarray, " query"]) -> int:
    """What the engine does once per query: layer 0's self-attention."""
    return _self_attention(sizes, lengths)


def engine_flops(
    sizes: Sizes, lengths: Int[np.ndarray, " pair"], image_of_pair: Int[np.ndarray, " pair"]
) -> int:
    """The engine, its queries begun (``begin_flops``) and every image in one block."""
    pairs, tokens = len(lengths), int(lengths.sum())
    _, image = np.unique(image_of_pair, return_inverse=True)
    tokens_of_image = np.bincount(image, weights=lengths).astype(np.int64)
    pairs_of_image = np.bincount(image)
    flops = _head(sizes, pairs, outputs=1)
    for layer in range(sizes.layers):
        last = layer == sizes.layers - 1
        if layer > 0:
            flops += _firsts_attention(sizes, lengths) if last else _self_attention(sizes, lengths)
        flops += _around_images(sizes, pairs if last else tokens)
        rows_of_image = pairs_of_image if last else tokens_of_image
        flops += sum(_looking(sizes, rows) for rows in rows_of_image.tolist())
    return flops


def absorbed_rows(sizes: Sizes) -> int:
    """Up to how many tokens look at an image itself, since that is less work than projecting it to
    keys and values for them (``_looking``); 62 at the published sizes.

    Were heads so few and images so narrow that it always is, as many as an image has patches.
    """
    pixels = sizes.patches * sizes.image_width
    dearer = sizes.heads * pixels - sizes.patches * sizes.width + sizes.width * sizes.image_width
    return (sizes.width * pixels - 1) // dearer if dearer > 0 else sizes.patches


def _looking(sizes: Sizes, rows: int) -> int:
    """Cross-attention of some tokens to one image: projecting the image to keys and values and
    attending over channels; or projecting the queries and what they see, and attending over the
    image's width once a head."""
    pixels, width = sizes.patches * sizes.image_width, sizes.width
    if rows <= absorbed_rows(sizes):
        return BRANCHES * 4 * rows * (width * sizes.image_width + sizes.heads * pixels)
    return BRANCHES * 4 * width * (pixels + rows * sizes.patches)


def _self_attention(sizes: Sizes, lengths: Int[np.ndarray, " text"]) -> int:
    """Four linear layers of all tokens; a token looks at those of its text."""
    tokens, looks = int(lengths.sum()), int((lengths**2).sum())
    return BRANCHES * (8 * tokens * sizes.width**2 + 4 * looks * sizes.width)


def _firsts_attention(sizes: Sizes, lengths: Int[np.ndarray, " text"]) -> int:
    """Keys and values of all tokens; query, attention and output of each text's first alone."""
    texts, tokens = len(lengths), int(lengths.sum())
    return BRANCHES * (4 * (tokens + texts) * sizes.width**2 + 4 * tokens * sizes.width)


def _around_images(sizes: Sizes, rows: int) -> int:
    """What a layer does to each row apart from attention: query, output and feed-forward. Merging
    costs nothing more when it is fused with the outputs."""
    return BRANCHES * 4 * rows * sizes.width * (sizes.width + sizes.feed_forward)


def _head(sizes: Sizes, pairs: int, *, outputs: int) -> int:
    return 2 * pairs * sizes.width * (BRANCHES * sizes.width + outputs)
