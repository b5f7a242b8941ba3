"""Hugging Face's ``BlipForImageTextRetrieval``, the pre-trained base, as our kind ``blip``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cir_core.checkpoints.conversion import Converted, KeyTable, rename, unwrapped
from cir_core.checkpoints.published import FUSION, POSITION_IDS, PROJECTIONS
from cir_core.checkpoints.sizes import Sizes
from cir_core.errors import CheckpointRefused
from cir_core.families import parse_config
from cir_core.retrievers.blip.fusion import INITIAL_TEMPERATURE

_BLOCK = "vision_model.encoder.layers.{layer}"

HF_BLIP = (
    {
        "vision_model.embeddings.class_embedding": "vision.cls_token",
        "vision_model.embeddings.position_embedding": "vision.position",
        "vision_model.embeddings.patch_embedding": "vision.patch",
        f"{_BLOCK}.layer_norm1": "vision.blocks.{layer}.attention_norm",
        f"{_BLOCK}.self_attn.qkv": "vision.blocks.{layer}.query_key_value",
        f"{_BLOCK}.self_attn.projection": "vision.blocks.{layer}.output",
        f"{_BLOCK}.layer_norm2": "vision.blocks.{layer}.mlp_norm",
        f"{_BLOCK}.mlp.fc1": "vision.blocks.{layer}.expand",
        f"{_BLOCK}.mlp.fc2": "vision.blocks.{layer}.contract",
        "vision_model.post_layernorm": "vision.norm",
    }
    | FUSION
    | PROJECTIONS
    | {"itm_head": "matching_head"}
)


def convert_hf_blip(
    state: Mapping[str, Tensor], config: Mapping[str, Any], source: str
) -> Converted:
    """The model of a Hugging Face folder; ``config`` is its parsed ``config.json``.

    Sizes come from the shapes, numbers of heads from ``config`` where it gives them (else
    width / 64). There is no temperature in these checkpoints: ours starts at
    ``INITIAL_TEMPERATURE``. Hugging Face computes its ViT's LayerNorms with epsilon 1e-5; we keep
    the 1e-6 that BLIP was trained with. Raises as ``convert_published``.
    """
    _require_blip(config, source)
    state = unwrapped(state)
    table = KeyTable(HF_BLIP)
    sizes = Sizes(state, table, source)
    content = {
        "kind": "blip",
        "vision": sizes.vision(_part(config, "vision_config").get("num_attention_heads")),
        "text": sizes.text("text.", _part(config, "text_config").get("num_attention_heads")),
        "embedding": sizes.embedding(),
    }
    parsed = parse_config(content, source)
    counters = {POSITION_IDS: parsed.text.positions}
    converted = rename(state, table, parsed, source, counters=counters, lacking={"temperature"})
    converted.tensors["temperature"] = torch.tensor(INITIAL_TEMPERATURE)
    return converted


def _require_blip(config: Mapping[str, Any], source: str) -> None:
    faults = []
    if config.get("model_type") != "blip":
        faults.append(f"model_type is {config.get('model_type')!r}, expected 'blip'")
    faults += [
        f"{part}.hidden_act is {activation!r}, expected 'gelu'"
        for part in ("vision_config", "text_config")
        if (activation := _part(config, part).get("hidden_act", "gelu")) != "gelu"
    ]
    if faults:
        raise CheckpointRefused(
            "not a Hugging Face BLIP model",
            item=source,
            cause="; ".join(faults),
            remedy="pass the folder of a BlipForImageTextRetrieval model",
        )


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}
