"""Names and sizes of Hugging Face's ``CLIPModel`` and ``SiglipModel``, and of SEARLE's and LinCIR's
phi, beside ours."""

from collections.abc import Mapping
from typing import Any

PHI_KEY = "Phi"
"""Of the state dict in SEARLE's and LinCIR's files."""

_OUT = "encoder.layers.{layer}"


def _blocks(tower: str, ours: str) -> dict[str, str]:
    block, mine = f"{tower}.{_OUT}", f"{ours}.blocks.{{layer}}"
    return {
        f"{block}.layer_norm1": f"{mine}.attention_norm",
        f"{block}.self_attn.q_proj": f"{mine}.attention.query",
        f"{block}.self_attn.k_proj": f"{mine}.attention.key",
        f"{block}.self_attn.v_proj": f"{mine}.attention.value",
        f"{block}.self_attn.out_proj": f"{mine}.attention.output",
        f"{block}.layer_norm2": f"{mine}.mlp_norm",
        f"{block}.mlp.fc1": f"{mine}.mlp.expand",
        f"{block}.mlp.fc2": f"{mine}.mlp.contract",
    }


TOWERS = {
    "vision_model.embeddings.patch_embedding": "vision.patch",
    "vision_model.embeddings.position_embedding.weight": "vision.position",
    "vision_model.post_layernorm": "vision.norm",
    "text_model.embeddings.token_embedding": "text.word",
    "text_model.embeddings.position_embedding": "text.position",
    "text_model.final_layer_norm": "text.norm",
    **_blocks("vision_model", "vision"),
    **_blocks("text_model", "text"),
}

CLIP = TOWERS | {
    "vision_model.embeddings.class_embedding": "vision.cls_token",
    "vision_model.pre_layrnorm": "vision.input_norm",  # spelled so
    "visual_projection": "vision_projection",
    "text_projection": "text_projection",
}

HEAD = "vision_model.head"
PROJECTIONS = ("query", "key", "value")

SIGLIP = TOWERS | {
    f"{HEAD}.probe": "head.probe",
    f"{HEAD}.attention.out_proj": "head.attention.output",
    f"{HEAD}.layernorm": "head.norm",
    f"{HEAD}.mlp.fc1": "head.mlp.expand",
    f"{HEAD}.mlp.fc2": "head.mlp.contract",
    "text_model.head": "text_projection",
    **{
        f"{HEAD}.attention.in_proj_{leaf}[{name}]": f"head.attention.{name}.{leaf}"
        for name in PROJECTIONS
        for leaf in ("weight", "bias")
    },
}

PHI = {"layers.0": "phi.first", "layers.3": "phi.second", "layers.6": "phi.third"}

SCALES = ("logit_scale", "logit_bias")
"""Of the contrastive loss: an order of candidates does not depend on them, so they are dropped."""

TEXT_SIZES = {
    "vocabulary_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "positions": "max_position_embeddings",
    "activation": "hidden_act",
    "epsilon": "layer_norm_eps",
}
VISION_SIZES = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "activation": "hidden_act",
    "epsilon": "layer_norm_eps",
}
_SIZES = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_WIDE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_NARROW = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
_SIGLIP = _SIZES | _WIDE | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}

UNSAID: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "clip": (
        _SIZES | _NARROW | {"vocab_size": 49408, "max_position_embeddings": 77},
        _SIZES | _WIDE | {"image_size": 224, "patch_size": 32},
    ),
    "siglip": (
        _SIGLIP | {"vocab_size": 32000, "max_position_embeddings": 64},
        _SIGLIP | {"image_size": 224, "patch_size": 16},
    ),
}
"""What Hugging Face's configs, of text and of vision, mean by fields that they leave out."""
