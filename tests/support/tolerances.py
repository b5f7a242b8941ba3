"""How far apart two computations of one number may lie: from what is computed, never from what one
processor happened to show.

Processors, their libraries and the number of threads differ in the order in which a sum is taken
and in whether a product is rounded before it is added. A sum of n products is then off by at most
n u / (1 - n u) times the sum of the products' magnitudes, in any order, fused or not (Higham,
Accuracy and Stability, 3.1), and by some √n u where errors do not conspire; u is half of eps. So:

- what is meant as a law (padding changes nothing; parts have the gradient of the whole) is
  computed in float64 and held to ``LAW``;
- an fp32 computation is held to the same in float64, or to another one in fp32, within
  ``rounding``;
- two results are expected bit for bit only where the same operations run on the same shapes, in
  the same number of threads, on one machine.
"""

import torch

from cir_core.layers.config import TextConfig
from cir_core.layers.encoders import ImageConfig

LAW = torch.finfo(torch.float64).eps ** 0.5
"""1.5e-8, half of a float64's digits. These models' rounding takes a third of them at most (sums of
some thousand products, numbers of order 1); a broken law shows in the first few."""


PUBLISHED_EMBEDDINGS, PUBLISHED_STATES = 1e-5, 1e-4
"""Of embeddings; of image tokens, z_t and logits. How far ours, in float64, may lie from what the
published implementation computed in fp32, once: what is left is that run's rounding, which is part
of the file and the same on every processor."""


def rounding(sums: int, *, magnitude: float = 1.0) -> float:
    """How far apart two computations of one number may lie in fp32.

    ``sums`` is the number of terms that are summed one after another on the way from the input to
    the number, all layers together: each layer's norm brings its output back to order 1, so that
    what earlier layers lost comes through about as large as it was, and losses add up.
    ``magnitude`` is that of the largest value.

    Rounding errors do not conspire: of n of them the sum exceeds l √n u with a probability of at
    most 2 exp(-l²/2) (Higham and Mary 2019). Of either computation l is 8, which is once in 10^13.
    """
    return 8 * sums**0.5 * torch.finfo(torch.float32).eps * magnitude


def vision_sums(vision: ImageConfig) -> int:
    """From pixels to image tokens: patches, then each block's norms, projections, attention over
    the tokens, and MLP."""
    attention = 2 * vision.width + vision.width // vision.heads + vision.tokens
    block = attention + vision.width + vision.mlp_width + 2 * vision.width
    return 3 * vision.patch_size**2 + vision.depth * block + vision.width


def text_sums(text: TextConfig, vision: ImageConfig, *, tokens: int) -> int:
    """From words and image tokens to a text's last state or a pair's score: in each layer attention
    over the text's ``tokens`` and over the image's, the merge of two branches, the feed-forward,
    and their three norms; then a head that reads both branches."""
    channels = text.width // text.heads
    itself = 2 * text.width + channels + tokens
    image = vision.width + text.width + channels + vision.tokens
    layer = itself + image + 2 * text.width + text.width + text.feed_forward + 3 * text.width
    return text.width + text.layers * layer + 3 * text.width
