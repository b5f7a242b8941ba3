"""A base for trainings over another model's image tower."""

from pathlib import Path

import torch

from cir_core.checkpoints.grafting import grafted
from cir_core.errors import UsageError
from cir_core.families import load_model, parse_config
from cir_core.retrievers.clip.config import ClipConfig
from cir_core.retrievers.siglip.config import SiglipConfig
from storage.models.folders import read_checkpoint, write_checkpoint
from tasks.models.convert import require_room
from tasks.models.converted import ConvertedModel
from tasks.models.opening import open_stage1


def graft(source: Path, text: Path, out: Path, *, half: bool = False) -> ConvertedModel:
    """The image tower of a converted CLIP or SigLIP in ``source``, below the text encoder of the
    BLIP base in ``text``, as a base (``cir_core.checkpoints.grafting``). ``half`` keeps it in fp16,
    as the preset demo's trainings keep theirs: all of a pair hold the same tower, bit for bit.
    Raises as ``convert``, and UsageError for a source of another kind.
    """
    read = read_checkpoint(source)
    config = parse_config(read.config, str(source))
    if not isinstance(config, ClipConfig | SiglipConfig):
        raise UsageError(
            "only a tower of CLIP or SigLIP is put below a text encoder",
            item=str(source),
            cause=f"it is of kind {config.kind!r}",
            remedy="leave --text out, or convert the Hugging Face folder first",
        )
    tower = load_model(config, read.tensors, str(source)).vision
    made = grafted(tower, open_stage1(text), str(text))
    require_room(out, made.config)
    dtype = torch.float16 if half else torch.float32
    digest = write_checkpoint(out, made.config.model_dump(), made.tensors, dtype=dtype)
    parameters = sum(tensor.numel() for tensor in made.tensors.values())
    return ConvertedModel(out, made.config.kind, parameters, digest, made.dropped)
