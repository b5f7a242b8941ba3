"""The published sizes: ViT-B/16 at 384 px, and a text encoder of BERT's size."""

from cir_core.layers.config import VisionConfig
from cir_core.retrievers.blip.config import PUBLISHED

assert isinstance(PUBLISHED.vision, VisionConfig), "it is BLIP's"
VISION, TEXT = PUBLISHED.vision, PUBLISHED.text
