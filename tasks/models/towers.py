"""Hugging Face's CLIP and SigLIP folders, and textual inversion beside a converted CLIP, read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cir_core.checkpoints.conversion import Converted
from cir_core.checkpoints.hf_tower_names import PHI_KEY
from cir_core.checkpoints.hf_towers import (
    MODEL_TYPES,
    HubFolder,
    convert_clip,
    convert_phi,
    convert_siglip,
)
from cir_core.errors import UsageError
from cir_core.families import parse_config
from cir_core.layers.token_files import TOKENIZER_FILE
from cir_core.retrievers.clip.config import ClipConfig
from storage.models.folders import CONFIG_FILE, read_checkpoint
from storage.models.hub import read_json, read_text
from storage.models.pickles import read_pickle

PICTURES_FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"


def is_towers(config: Mapping[str, Any]) -> bool:
    """Of a parsed ``config.json`` of Hugging Face."""
    return config.get("model_type") in MODEL_TYPES


def convert_towers(
    tensors: Mapping[str, Tensor], folder: Path, config: Mapping[str, Any]
) -> Converted:
    """Raises CheckpointRefused."""
    make = convert_clip if config["model_type"] == "clip" else convert_siglip
    return make(tensors, _read_beside(folder, config))


def _read_beside(folder: Path, config: Mapping[str, Any]) -> HubFolder:
    """What newer versions of the library write into ``processor_config.json``, older ones write
    into ``preprocessor_config.json``."""
    older = folder / PICTURES_FILE
    if older.exists():
        pictures = read_json(older)
    else:
        pictures = read_json(folder / PROCESSOR_FILE).get("image_processor", {})
    return HubFolder(
        config=config,
        pictures=pictures,
        tokenizer_config=read_json(folder / TOKENIZER_CONFIG_FILE),
        tokenizer=read_text(folder / TOKENIZER_FILE),
        source=str(folder),
    )


def read_phi(source: Path, clip: Path) -> Converted:
    """SEARLE's or LinCIR's file, with the converted CLIP that it belongs to. Raises UsageError
    where that is none, and CheckpointRefused."""
    beside = read_checkpoint(clip)
    config = parse_config(beside.config, str(clip))
    if not isinstance(config, ClipConfig):
        raise UsageError(
            "textual inversion needs a converted CLIP",
            item=str(clip),
            cause=f"its {CONFIG_FILE} says kind {config.kind!r}",
            remedy="convert the Hugging Face folder of the CLIP that phi was trained with, and "
            "name that",
        )
    return convert_phi(read_pickle(source, (PHI_KEY,)).tensors, config, beside.tensors, str(source))
