"""Convert other people's checkpoints: read, rename in the core, write."""

from dataclasses import dataclass
from pathlib import Path

from cir_core.checkpoints.conversion import Converted
from cir_core.checkpoints.hf_blip import convert_hf_blip
from cir_core.checkpoints.published import MODEL_KEYS, convert_published
from cir_core.errors import CheckpointRefused, UsageError
from cir_core.models.config import Kind
from storage.checkpoints import WEIGHTS_FILE, read_config, write_checkpoint
from storage.pickles import read_pickle, read_safetensors

HF_PICKLE = "pytorch_model.bin"


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model on disk. ``dropped`` names the source keys that were left out."""

    path: Path
    kind: Kind
    parameters: int
    sha256: str
    dropped: tuple[str, ...]


def convert(source: Path, out: Path) -> ConvertedModel:
    """A published ``.pt`` of either stage, or a Hugging Face BLIP folder, to a model folder.

    Converting the same source twice writes the same bytes. Raises CheckpointRefused (and writes
    nothing) when anything about the source is not as declared.
    """
    if source.resolve() == out.resolve():
        raise UsageError(
            "a conversion cannot overwrite its source",
            item=str(out),
            remedy="name another output folder",
        )
    converted = _read(source)
    digest = write_checkpoint(out, converted.config.model_dump(), converted.tensors)
    return ConvertedModel(
        path=out,
        kind=converted.config.kind,
        parameters=sum(tensor.numel() for tensor in converted.tensors.values()),
        sha256=digest,
        dropped=converted.dropped,
    )


def _read(source: Path) -> Converted:
    if source.is_dir():
        return _read_hf(source)
    model = read_pickle(source, MODEL_KEYS)
    return convert_published(model.tensors, str(source))


def _read_hf(folder: Path) -> Converted:
    config = read_config(folder)
    if (folder / WEIGHTS_FILE).exists():
        tensors = read_safetensors(folder / WEIGHTS_FILE)
    elif (folder / HF_PICKLE).exists():
        tensors = read_pickle(folder / HF_PICKLE).tensors
    else:
        raise CheckpointRefused(
            "a Hugging Face folder has no weights",
            item=str(folder),
            cause=f"neither {WEIGHTS_FILE} nor {HF_PICKLE} is there",
            remedy="download the folder again, whole; weights in several files are not supported",
        )
    return convert_hf_blip(tensors, config, str(folder))
