"""What stage 1 costs, counted: FLOPs of the ViT and of fusing.

A product of [m, k] and [k, n] is 2 m k n FLOPs; nothing else is counted (norms, softmax and GELU
are under one percent).
"""

import numpy as np
from jaxtyping import Int

from cir_core.layers.config import TextConfig
from cir_core.layers.encoders import ImageConfig


def fusion_flops(
    text: TextConfig, vision: ImageConfig, embedding: int, lengths: Int[np.ndarray, " query"]
) -> int:
    """z_t and the embeddings of queries of these lengths in tokens, their image tokens given and
    projected for each query. Padding is not counted."""
    image_width, patches = vision.width, vision.tokens
    queries, tokens, looks = len(lengths), int(lengths.sum()), int((lengths**2).sum())
    projecting = 4 * queries * patches * image_width * text.width
    around = 4 * tokens * text.width * (3 * text.width + text.feed_forward)
    looking = 4 * text.width * (looks + tokens * patches)
    return text.layers * (projecting + around + looking) + (2 * queries * text.width * embedding)
