"""Hugging Face folders of vision-language models to model folders: config and prompt are written,
the weights stay the publisher's files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cir_core.errors import CheckpointRefused
from cir_core.families import load_model
from cir_core.layers.token_files import TOKENIZER_FILE
from cir_core.rerankers.vlm.config import ARCHITECTURES, TEMPLATE, Pixels, VlmConfig
from cir_core.rerankers.vlm.extra import transformers
from cir_core.rerankers.vlm.forms import FORMS
from cir_core.rerankers.vlm.prompt import make_prompt
from storage.models.folders import read_config, read_tensors, write_linked
from storage.models.hub import read_json, read_text, require_downloaded
from storage.models.weights import weight_files
from tasks.models.converted import ConvertedModel

MOST_TOKENS = 512
"""Of a picture, where the publisher allows more. Photos of the benchmarks have 100 to 500 of 32 x
32 pixels; and states are kept at the size of the largest that is allowed: 2 MB an image for each
1,000 numbers of a token, 17 MB with Qwen3-VL-2B."""

USUAL_FORM = {"qwen3_vl": "qwen3-vl-reranker", "qwen2_vl": "lamra", "qwen2_5_vl": "lamra"}
"""What the reranker that is best known of each architecture was trained with."""


def is_vlm(folder: Path) -> bool:
    """Whether its config.json names an architecture that is asked yes or no."""
    return folder.is_dir() and read_config(folder).get("model_type") in ARCHITECTURES


def convert_vlm(
    source: Path, out: Path, form: str | None, require_room: Callable[[VlmConfig], None]
) -> ConvertedModel:
    """``form`` is a name in ``FORMS``; ``require_room`` is asked before anything is written. The
    model is opened as a run will, so this takes the memory of its weights in fp32.

    Raises CheckpointRefused when a file is missing or damaged, when weights are missing, extra,
    misshapen or not finite, and as ``make_prompt``; PreflightError without transformers. Nothing is
    written then.
    """
    files = weight_files(source)
    for file in files.values():
        if not file.exists():
            raise _refused(source, f"{file.name} is missing")
        require_downloaded(file)
    config = _read(source, form)
    tensors = read_tensors(source)
    load_model(config, tensors, str(source))
    require_room(config)
    digest = write_linked(out, config.model_dump(), source)
    return ConvertedModel(
        path=out,
        kind=config.kind,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        sha256=digest,
        dropped=(),
    )


def _architecture(source: Path) -> dict[str, Any]:
    """With all that transformers adds where a publisher leaves something at its default."""
    try:
        parsed = transformers().AutoConfig.for_model(**read_config(source))
        found: dict[str, Any] = json.loads(json.dumps(parsed.to_dict()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _refused(source, f"config.json: {error}") from error
    return found


def _read(source: Path, form: str | None) -> VlmConfig:
    architecture = _architecture(source)
    for name in ("transformers_version", "_name_or_path", "dtype"):
        architecture.pop(name, None)  # tell of the file, not of the model
    asked = FORMS[form or USUAL_FORM[architecture["model_type"]]]
    tokenizer, template = read_text(source / TOKENIZER_FILE), _template(source)
    prompt = make_prompt(asked, template, tokenizer, architecture["image_token_id"])
    try:
        return VlmConfig(
            kind="vlm",
            architecture=architecture,
            form=asked,
            prompt=prompt,
            pixels=_pixels(source, architecture["vision_config"]),
            weights="",
            attached={TOKENIZER_FILE: tokenizer, TEMPLATE: template},
        )
    except ValidationError as error:
        raise _refused(source, "; ".join(fault["msg"] for fault in error.errors())) from error


def _pixels(source: Path, vision: Mapping[str, Any]) -> Pixels:
    """The publisher's limits; none allows more than ``MOST_TOKENS``."""
    told = read_json(source / "preprocessor_config.json")
    size = told.get("size") or {}
    cell = (vision["patch_size"] * vision["spatial_merge_size"]) ** 2
    least = told.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels")
    most = told.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels")
    cut = (told.get("patch_size"), told.get("merge_size"))
    if cut != (vision["patch_size"], vision["spatial_merge_size"]):
        raise _refused(source, f"preprocessor_config.json cuts patches of {cut}, the model others")
    if not (least and most and told.get("image_mean") and told.get("image_std")):
        raise _refused(source, "preprocessor_config.json does not tell size, mean and deviation")
    return Pixels(
        least=min(least, MOST_TOKENS * cell),
        most=min(most, MOST_TOKENS * cell),
        mean=tuple(told["image_mean"]),
        std=tuple(told["image_std"]),
    )


def _template(source: Path) -> str:
    """Where transformers' releases have kept it: a file of its own, a JSON file, the tokenizer's
    config."""
    if (source / TEMPLATE).exists():
        return read_text(source / TEMPLATE)
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (source / name).exists():
            template = read_json(source / name).get("chat_template")
            if isinstance(template, str):
                return template
    raise _refused(source, f"it has no chat template: neither {TEMPLATE} nor an entry of another")


def _refused(item: Path, cause: str) -> CheckpointRefused:
    return CheckpointRefused(
        "a vision-language model cannot be converted",
        item=str(item),
        cause=cause,
        remedy="download the folder again, whole: hf download MODEL --local-dir FOLDER",
    )
