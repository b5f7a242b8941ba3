"""The published sizes: ViT-B/16 at 384 px, and a text encoder of BERT's size."""

from cir_core.layers.config import TextConfig, VisionConfig

VISION = VisionConfig(image_size=384, patch_size=16, width=768, depth=12, heads=12, mlp_width=3072)
TEXT = TextConfig(
    vocabulary="bert-base-uncased",
    vocabulary_size=30524,
    width=768,
    layers=12,
    heads=12,
    feed_forward=3072,
)
