"""The published checkpoints (Candidate-Reranking-CIR, on BLIP's code base): names and sizes.

Stage 1 is ``BLIP_Retrieval``, stage 2 ``BLIP_NLVR``. Both hold the same frozen visual encoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cir_core.checkpoints.conversion import Converted, KeyTable, rename, restore, unwrapped
from cir_core.checkpoints.sizes import Sizes, require_told_by_shapes
from cir_core.errors import CheckpointRefused
from cir_core.families import ModelConfig, TrainedConfig, parse_config
from cir_core.layers.config import TextConfig
from cir_core.rerankers.dual.config import Stage2Config

MODEL_KEYS = ("BLIP_Retrieval", "BLIP_NLVR")
"""A published file is {"epoch", one of these: the state dict, "optimizer_state_dict"}."""

POSITION_IDS = "text_encoder.embeddings.position_ids"
"""A buffer that only counts 0, 1, 2, ...: dropped, and made again on the way back."""

VISION = {
    "visual_encoder.cls_token": "vision.cls_token",
    "visual_encoder.pos_embed": "vision.position",
    "visual_encoder.patch_embed.proj": "vision.patch",
    "visual_encoder.blocks.{layer}.norm1": "vision.blocks.{layer}.attention_norm",
    "visual_encoder.blocks.{layer}.attn.qkv": "vision.blocks.{layer}.query_key_value",
    "visual_encoder.blocks.{layer}.attn.proj": "vision.blocks.{layer}.output",
    "visual_encoder.blocks.{layer}.norm2": "vision.blocks.{layer}.mlp_norm",
    "visual_encoder.blocks.{layer}.mlp.fc1": "vision.blocks.{layer}.expand",
    "visual_encoder.blocks.{layer}.mlp.fc2": "vision.blocks.{layer}.contract",
    "visual_encoder.norm": "vision.norm",
}

_EMBEDDINGS = "text_encoder.embeddings"
_LAYER = "text_encoder.encoder.layer.{layer}"

FUSION = {
    f"{_EMBEDDINGS}.word_embeddings": "text.embeddings.word",
    f"{_EMBEDDINGS}.position_embeddings": "text.embeddings.position",
    f"{_EMBEDDINGS}.LayerNorm": "text.embeddings.norm",
    f"{_LAYER}.attention.self.query": "text.layers.{layer}.self_attention.query",
    f"{_LAYER}.attention.self.key": "text.layers.{layer}.self_attention.key",
    f"{_LAYER}.attention.self.value": "text.layers.{layer}.self_attention.value",
    f"{_LAYER}.attention.output.dense": "text.layers.{layer}.self_attention.output",
    f"{_LAYER}.attention.output.LayerNorm": "text.layers.{layer}.self_norm",
    f"{_LAYER}.crossattention.self.query": "text.layers.{layer}.cross_attention.query",
    f"{_LAYER}.crossattention.self.key": "text.layers.{layer}.cross_attention.key",
    f"{_LAYER}.crossattention.self.value": "text.layers.{layer}.cross_attention.value",
    f"{_LAYER}.crossattention.output.dense": "text.layers.{layer}.cross_attention.output",
    f"{_LAYER}.crossattention.output.LayerNorm": "text.layers.{layer}.cross_norm",
    f"{_LAYER}.intermediate.dense": "text.layers.{layer}.feed_forward.expand",
    f"{_LAYER}.output.dense": "text.layers.{layer}.feed_forward.contract",
    f"{_LAYER}.output.LayerNorm": "text.layers.{layer}.feed_forward.norm",
}
"""BLIP's text encoder; Hugging Face kept these names."""

PROJECTIONS = {"vision_proj": "vision_projection", "text_proj": "text_projection"}

STAGE1 = VISION | FUSION | PROJECTIONS | {"temp": "temperature"}

STAGE2 = VISION | {
    f"{_EMBEDDINGS}.word_embeddings": "embeddings.word",
    f"{_EMBEDDINGS}.position_embeddings": "embeddings.position",
    f"{_EMBEDDINGS}.LayerNorm": "embeddings.norm",
    f"{_LAYER}.attention.self0.query": "layers.{layer}.self_attention.0.query",
    f"{_LAYER}.attention.self0.key": "layers.{layer}.self_attention.0.key",
    f"{_LAYER}.attention.self0.value": "layers.{layer}.self_attention.0.value",
    f"{_LAYER}.attention.output.dense0": "layers.{layer}.self_attention.0.output",
    f"{_LAYER}.attention.output.LayerNormA": "layers.{layer}.self_norm.0",
    f"{_LAYER}.attention.self1.query": "layers.{layer}.self_attention.1.query",
    f"{_LAYER}.attention.self1.key": "layers.{layer}.self_attention.1.key",
    f"{_LAYER}.attention.self1.value": "layers.{layer}.self_attention.1.value",
    f"{_LAYER}.attention.output.dense1": "layers.{layer}.self_attention.1.output",
    f"{_LAYER}.attention.output.LayerNormB": "layers.{layer}.self_norm.1",
    f"{_LAYER}.crossattention.self0.query": "layers.{layer}.cross_attention.0.query",
    f"{_LAYER}.crossattention.self0.key": "layers.{layer}.cross_attention.0.key",
    f"{_LAYER}.crossattention.self0.value": "layers.{layer}.cross_attention.0.value",
    f"{_LAYER}.crossattention.output.dense0": "layers.{layer}.cross_attention.0.output",
    f"{_LAYER}.crossattention.output.LayerNormA": "layers.{layer}.cross_norm.0",
    f"{_LAYER}.crossattention.self1.query": "layers.{layer}.cross_attention.1.query",
    f"{_LAYER}.crossattention.self1.key": "layers.{layer}.cross_attention.1.key",
    f"{_LAYER}.crossattention.self1.value": "layers.{layer}.cross_attention.1.value",
    f"{_LAYER}.crossattention.output.dense1": "layers.{layer}.cross_attention.1.output",
    f"{_LAYER}.crossattention.output.LayerNormB": "layers.{layer}.cross_norm.1",
    f"{_LAYER}.crossattention.output.merge_layer": "layers.{layer}.merge",
    f"{_LAYER}.intermediate.dense": "layers.{layer}.feed_forward.expand",
    f"{_LAYER}.output.dense": "layers.{layer}.feed_forward.contract",
    f"{_LAYER}.output.LayerNorm": "layers.{layer}.feed_forward.norm",
    "cls_head.0": "score_head.hidden",
    "cls_head.2": "score_head.output",
}


@dataclass(frozen=True)
class Published:
    """A model in the published names, fp32. ``added`` lists the keys that have no tensor of ours
    (buffers that only count), ``dropped`` the settings that the format has no place for."""

    model_key: str
    state: dict[str, Tensor]
    added: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def content(self) -> dict[str, Any]:
        """What the published training code saves. Its readers look at the model alone; the epoch
        and the optimiser's state are not known here, and are written as 0 and empty."""
        return {"epoch": 0, self.model_key: self.state, "optimizer_state_dict": {}}


def convert_published(state: Mapping[str, Tensor], source: str) -> Converted:
    """A published state dict of either stage (told by its keys) as our model, sizes from shapes.

    Raises CheckpointRefused naming what is missing, extra, misshapen or of unknown size, and
    NonFiniteError for NaN or infinity. ``source`` is what messages call the file. Prefixes of
    wrappers are taken off.
    """
    state = unwrapped(state)
    stage1, stage2 = KeyTable(STAGE1), KeyTable(STAGE2)
    known1 = sum(stage1.ours(key) is not None for key in state)
    known2 = sum(stage2.ours(key) is not None for key in state)
    if known1 == known2:
        raise CheckpointRefused(
            "neither a stage-1 nor a stage-2 checkpoint",
            item=source,
            cause=f"its {len(state)} keys begin with {', '.join(sorted(state)[:3]) or 'none'}",
            remedy="pass a file of the published BLIP_Retrieval or BLIP_NLVR model",
        )
    return _stage1(state, stage1, source) if known1 > known2 else _stage2(state, stage2, source)


def _stage1(state: Mapping[str, Tensor], table: KeyTable, source: str) -> Converted:
    content = {"kind": "stage1", **Sizes(state, table, source).of_stage1()}
    config = parse_config(content, source)
    return rename(state, table, config, source, counters=_counters(config))


def _stage2(state: Mapping[str, Tensor], table: KeyTable, source: str) -> Converted:
    sizes = Sizes(state, table, source)
    content = {
        "kind": "stage2",
        "vision": sizes.vision(),
        "text": sizes.text(""),
        "merge_from": sizes.merge_from(),
    }
    config = parse_config(content, source)
    return rename(state, table, config, source, counters=_counters(config))


def to_published(config: ModelConfig, tensors: Mapping[str, Tensor], source: str) -> Published:
    """``convert_published`` backwards, through the same tables: every key of the published file.

    Reading it again gives the same tensors, bit for bit, and the same config but for ``dropped``.
    Raises CheckpointRefused for a pre-trained base (the format holds the two stages), for sizes
    that shapes do not tell, and for tensors that are missing, extra or misshapen; NonFiniteError
    for NaN or infinity. ``source`` is what messages call the model.
    """
    if not isinstance(config, TrainedConfig) or config.kind == "blip":
        base = "a pre-trained base" if config.kind == "blip" else "this model"
        raise CheckpointRefused(
            f"{base} has no published format",
            item=source,
            cause=f"its kind is {config.kind!r}, and the published files hold a stage 1 or a "
            "stage 2",
            remedy="pass the model folder of one of the two stages",
        )
    require_told_by_shapes(config, source)
    stage1_key, stage2_key = MODEL_KEYS
    is_stage2 = isinstance(config, Stage2Config)
    model_key, names = (stage2_key, STAGE2) if is_stage2 else (stage1_key, STAGE1)
    counters = _counters(config)
    state = restore(tensors, KeyTable(names), config, source, counters=counters)
    return Published(model_key, state, added=tuple(counters), dropped=_untold(config.text))


def _counters(config: TrainedConfig) -> dict[str, int]:
    return {POSITION_IDS: config.text.positions}


def _untold(text: TextConfig) -> tuple[str, ...]:
    default = TextConfig.model_fields["dropout"].default
    return () if text.dropout == default else (f"text.dropout {text.dropout} (read as {default})",)
