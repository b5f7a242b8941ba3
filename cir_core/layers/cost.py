"""What shared blocks cost, counted: FLOPs.

A product of [m, k] and [k, n] is 2 m k n FLOPs; nothing else is counted (norms, softmax and GELU
are under one percent).
"""

from cir_core.layers.config import VisionConfig
from cir_core.layers.preprocess import CHANNELS


def vision_flops(config: VisionConfig) -> int:
    """The ViT, of one image: 111 GFLOP at the published size."""
    tokens, width = config.tokens, config.width
    patches = 2 * (tokens - 1) * CHANNELS * config.patch_size**2 * width
    linear = 2 * tokens * width * (4 * width + 2 * config.mlp_width)
    attention = 4 * tokens**2 * width
    return patches + config.depth * (linear + attention)
