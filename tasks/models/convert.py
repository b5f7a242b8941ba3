"""Convert checkpoints of other code to model folders, and back: read, rename, write."""

from functools import partial
from pathlib import Path

import torch

from cir_core.checkpoints.conversion import Converted
from cir_core.checkpoints.hf_blip import convert_hf_blip
from cir_core.checkpoints.original_blip import (
    convert_base,
    convert_covr,
    is_base,
    is_covr,
)
from cir_core.checkpoints.published import MODEL_KEYS, convert_published, to_published
from cir_core.errors import CheckpointRefused, UsageError
from cir_core.families import ModelConfig, parse_config
from cir_core.rerankers.vlm.config import VlmConfig
from storage.models.folders import CONFIG_FILE, read_config, read_tensors, write_checkpoint
from storage.models.hub import require_downloaded
from storage.models.pickles import read_pickle, read_safetensors, write_pickle
from storage.models.weights import WEIGHTS_FILE
from tasks.models.converted import ConvertedModel
from tasks.models.towers import convert_towers, is_towers, read_phi
from tasks.models.vlm import convert_vlm, is_vlm

HF_PICKLE = "pytorch_model.bin"


def convert(
    source: Path,
    out: Path,
    *,
    half: bool = False,
    prompt: str | None = None,
    clip: Path | None = None,
) -> ConvertedModel:
    """A published ``.pt`` of either stage, BLIP's own of its base, CoVR's, or a Hugging Face folder
    of a BLIP, a CLIP, a SigLIP or a vision-language model, to a model folder; or SEARLE's or
    LinCIR's ``.pt``, where ``clip`` is the converted CLIP that it belongs to.

    ``half`` keeps the weights in fp16 on disk, rounded. A vision-language model's stay in their
    files, which are linked; ``prompt`` is the form in which it is asked, its architecture's usual
    one if None. Converting the same source twice writes the same bytes. Raises CheckpointRefused
    (and writes nothing) when anything about the source is not as declared, NonFiniteError when a
    weight is too large for fp16, and UsageError when ``out`` holds another kind or size of model,
    or is the source itself, or the source is a model folder, or an option is not meant for it.
    """
    if source.resolve() == out.resolve():
        raise UsageError(
            "a conversion cannot overwrite its source",
            item=str(out),
            remedy="name another output folder",
        )
    if clip is not None and source.is_dir():
        raise UsageError(
            "only textual inversion, a .pt file, needs a CLIP beside it",
            item=str(source),
            remedy="leave --clip out",
        )
    if source.is_dir() and is_vlm(source):
        if half:
            raise UsageError(
                "a vision-language model's weights stay as they are", remedy="leave --half out"
            )
        return convert_vlm(source, out, prompt, partial(require_room, out))
    if prompt is not None:
        raise UsageError(
            "only a vision-language model is asked with a prompt",
            item=str(source),
            remedy="leave --prompt out",
        )
    converted = _read(source) if clip is None else read_phi(source, clip)
    require_room(out, converted.config)
    dtype = torch.float16 if half else torch.float32
    digest = write_checkpoint(out, converted.config.model_dump(), converted.tensors, dtype=dtype)
    return ConvertedModel(
        path=out,
        kind=converted.config.kind,
        parameters=sum(tensor.numel() for tensor in converted.tensors.values()),
        sha256=digest,
        dropped=converted.dropped,
    )


def convert_back(model: Path, out: Path) -> ConvertedModel:
    """A model folder of either stage to a published ``.pt``, which the authors' code loads.

    ``convert`` reads it back to the same tensors, bit for bit; the file holds fp32 whatever the
    folder does. Raises CheckpointRefused (and writes nothing) when the folder is no whole model,
    or one that the format cannot express, and UsageError when ``out`` is there already.
    """
    if out.exists():
        raise UsageError(
            "a published checkpoint is never overwritten",
            item=str(out),
            cause="it may be the only copy, with an optimiser's state that cannot be made again",
            remedy="name a file that is not there yet",
        )
    config = parse_config(read_config(model), str(model))
    if isinstance(config, VlmConfig):
        raise CheckpointRefused(
            "a vision-language model has no published .pt format",
            item=str(model),
            remedy="use the folder that it was converted from",
        )
    tensors = read_tensors(model)
    published = to_published(config, tensors, str(model))
    return ConvertedModel(
        path=out,
        kind=config.kind,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        sha256=write_pickle(out, published.content),
        dropped=published.dropped,
        added=published.added,
    )


def require_room(out: Path, config: ModelConfig | VlmConfig) -> None:
    """A model may be converted again, over itself; anything else there must not vanish."""
    if not (out / CONFIG_FILE).exists():
        return
    try:
        present = parse_config(read_config(out), str(out))
    except CheckpointRefused:
        present = None  # not a model of ours, so not this one
    if isinstance(config, VlmConfig) and isinstance(present, VlmConfig):
        config = config.model_copy(update={"weights": present.weights})  # told when they are linked
    if present != config:
        raise UsageError(
            "the output folder holds something else",
            item=str(out),
            cause=f"its {CONFIG_FILE} is not that of a {config.kind} model of these sizes",
            remedy="name another output folder, or remove this one",
        )


def _read(source: Path) -> Converted:
    if source.is_dir():
        return _read_hf(source)
    model = read_pickle(source, MODEL_KEYS)
    if is_base(model.tensors):
        return convert_base(model.tensors, str(source))
    if is_covr(model.model_key, model.tensors):
        return convert_covr(model.tensors, str(source))
    return convert_published(model.tensors, str(source))


def _read_hf(folder: Path) -> Converted:
    config = read_config(folder)
    if "kind" in config:  # ours say it, Hugging Face's say "model_type"
        raise UsageError(
            "the source is a model folder already",
            item=str(folder),
            remedy="add --to published to convert it back, and name a .pt file to write",
        )
    files = [folder / file for file in (WEIGHTS_FILE, HF_PICKLE) if (folder / file).exists()]
    if not files:
        raise CheckpointRefused(
            "a Hugging Face folder has no weights",
            item=str(folder),
            cause=f"neither {WEIGHTS_FILE} nor {HF_PICKLE} is there",
            remedy="download the folder again, whole; weights in several files are not supported",
        )
    weights = files[0]
    is_pickle = weights.name == HF_PICKLE
    tensors = read_pickle(weights).tensors if is_pickle else read_safetensors(weights)
    require_downloaded(weights)
    if is_towers(config):
        return convert_towers(tensors, folder, config)
    return convert_hf_blip(tensors, config, str(folder))
