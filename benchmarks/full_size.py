"""The published sizes: ViT-B/16 at 384 px, and a text encoder of BERT's size."""

from cir_core.retrievers.blip.config import PUBLISHED

VISION, TEXT = PUBLISHED.vision, PUBLISHED.text
