"""Hugging Face's CLIP and SigLIP folders, and textual inversion beside a converted CLIP, read."""

import json
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
from cir_core.errors import CheckpointRefused, UsageError
from cir_core.families import parse_config
from cir_core.layers.token_files import TOKENIZER_FILE
from cir_core.retrievers.clip.config import ClipConfig
from storage.models.folders import CONFIG_FILE, read_checkpoint
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
        pictures = _read_json(older)
    else:
        pictures = _read_json(folder / PROCESSOR_FILE).get("image_processor", {})
    return HubFolder(
        config=config,
        pictures=pictures,
        tokenizer_config=_read_json(folder / TOKENIZER_CONFIG_FILE),
        tokenizer=_read_text(folder / TOKENIZER_FILE),
        source=str(folder),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except ValueError as error:
        raise _unreadable(path, f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise _unreadable(path, "it is not a JSON object")
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, cause: str) -> CheckpointRefused:
    return CheckpointRefused(
        "a Hugging Face folder is not whole",
        item=str(path),
        cause=cause,
        remedy="download the folder again, whole: a CLIP or SigLIP needs config.json, weights, "
        f"{PICTURES_FILE}, {TOKENIZER_FILE} and {TOKENIZER_CONFIG_FILE}",
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
