"""What stage 1 costs, counted: FLOPs of the ViT and of fusing.

A product of [m, k] and [k, n] is 2 m k n FLOPs; nothing else is counted (norms, softmax and GELU
are under one percent).
"""

import numpy as np
from jaxtyping import Int

from cir_core.layers.config import TextConfig, VisionConfig

CHANNELS = 3


def vision_flops(config: VisionConfig) -> int:
    """The ViT, of one image: 111 GFLOP at the published size."""
    tokens, width = config.tokens, config.width
    patches = 2 * (tokens - 1) * CHANNELS * config.patch_size**2 * width
    linear = 2 * tokens * width * (4 * width + 2 * config.mlp_width)
    attention = 4 * tokens**2 * width
    return patches + config.depth * (linear + attention)


def fusion_flops(
    text: TextConfig, vision: VisionConfig, embedding: int, lengths: Int[np.ndarray, " query"]
) -> int:
    """z_t and the embeddings of queries of these lengths in tokens, their image tokens given and
    projected for each query. Padding is not counted."""
    image_width, patches = vision.width, vision.tokens
    queries, tokens, looks = len(lengths), int(lengths.sum()), int((lengths**2).sum())
    projecting = 4 * queries * patches * image_width * text.width
    around = 4 * tokens * text.width * (3 * text.width + text.feed_forward)
    looking = 4 * text.width * (looks + tokens * patches)
    return text.layers * (projecting + around + looking) + (2 * queries * text.width * embedding)
