"""Tensors and sizes to a ready model, strictly."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from cir_core.errors import CheckpointRefused, NonFiniteError
from cir_core.layers.config import ModelConfig, Stage1Config, Stage2Config
from cir_core.layers.shapes import shapes_alone
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.fusion import Stage1Model

Model = TypeVar("Model", bound=nn.Module)

_SHOWN = 5


def parse_config(content: Mapping[str, Any], source: str) -> ModelConfig:
    """Raises CheckpointRefused naming every wrong field."""
    try:
        config: ModelConfig = TypeAdapter(ModelConfig).validate_python(dict(content))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise CheckpointRefused(
            "a model's config.json is not usable",
            item=source,
            cause=faults,
            remedy="convert or train the model again with this version",
        ) from error
    return config


def load_stage1(config: ModelConfig, tensors: Mapping[str, Tensor], source: str) -> Stage1Model:
    """Stage 1, in eval mode; a pre-trained base serves too (zero-shot).

    Raises CheckpointRefused for a stage-2 model or any missing, extra or misshapen tensor, and
    NonFiniteError for NaN or infinity in a weight.
    """
    return load_strictly(Stage1Model(as_stage1(config, source)), tensors, source)


def load_stage2(config: ModelConfig, tensors: Mapping[str, Tensor], source: str) -> Stage2Model:
    """Stage 2, in eval mode. Raises as ``load_stage1``."""
    return load_strictly(Stage2Model(as_stage2(config, source)), tensors, source)


def as_stage1(config: ModelConfig, source: str) -> Stage1Config:
    """Raises CheckpointRefused for a stage-2 model."""
    if not isinstance(config, Stage1Config):
        raise _wrong_stage("stage 1", config, source)
    return config


def as_stage2(config: ModelConfig, source: str) -> Stage2Config:
    """Raises CheckpointRefused for any other than a stage-2 model."""
    if not isinstance(config, Stage2Config):
        raise _wrong_stage("stage 2", config, source)
    return config


def load_strictly(model: Model, tensors: Mapping[str, Tensor], source: str) -> Model:
    """Fill a model; every tensor must be there, have its shape, and be finite. One in fp32 becomes
    the model's own and is not copied."""
    check_tensors(
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, tensors, source
    )
    filling = {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
    model.load_state_dict(filling, strict=True, assign=True)
    return model.eval()


def check_tensors(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor], source: str
) -> None:
    """Raises CheckpointRefused as ``check_shapes``, and NonFiniteError."""
    check_shapes(expected, {name: tuple(one.shape) for name, one in found.items()}, source)
    broken = [name for name in expected if not torch.isfinite(found[name]).all()]
    if broken:
        raise NonFiniteError(
            "a checkpoint holds NaN or infinite weights",
            item=source,
            cause=f"{len(broken)} tensors: {', '.join(broken[:_SHOWN])}",
            remedy="download or train it again",
        )


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the config's model by name; takes no memory for them."""
    with shapes_alone():
        model: nn.Module = (
            Stage1Model(config) if isinstance(config, Stage1Config) else Stage2Model(config)
        )
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_shapes(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Raises CheckpointRefused listing the first missing, extra and misshapen names."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    misshapen = [
        f"{name} is {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    faults = [
        f"{len(names)} {fault}: {', '.join(names[:_SHOWN])}"
        for fault, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise CheckpointRefused(
            "a checkpoint does not fit the model",
            item=source,
            cause="; ".join(faults),
            remedy="check that the file belongs to this stage and architecture",
        )


def require_same_vision(stage1: Stage1Model, stage2: Stage1Model | Stage2Model) -> None:
    """Both stages must hold the same frozen ViT, so that a gallery is encoded once.

    Raises CheckpointRefused naming the first tensors that differ.
    """
    ours, theirs = stage1.vision.state_dict(), stage2.vision.state_dict()
    differing = [
        name for name in ours if name not in theirs or not torch.equal(ours[name], theirs[name])
    ]
    require_fit(stage1.config, stage2.config, differing)


def require_fit(stage1: Stage1Config, other: ModelConfig, differing: Sequence[str]) -> None:
    """``differing`` names tensors of the visual encoders that are not the same. Raises
    CheckpointRefused as ``require_same_vision``."""
    if differing or stage1.vision != other.vision:
        raise CheckpointRefused(
            "the two stages hold different visual encoders",
            cause=f"{len(differing)} tensors differ: {', '.join(differing[:_SHOWN])}",
            remedy="use a pair that was trained from the same frozen encoder",
        )
    require_same_tokens(stage1, other)


def require_same_tokens(stage1: Stage1Config, other: ModelConfig) -> None:
    """Stage 2 reads stage 1's token ids and z_t: words, positions and width must agree.

    Raises CheckpointRefused naming what differs.
    """
    fields = ("vocabulary", "vocabulary_size", "positions", "width")
    differing = [
        f"{name} {getattr(stage1.text, name)} and {getattr(other.text, name)}"
        for name in fields
        if getattr(stage1.text, name) != getattr(other.text, name)
    ]
    if differing:
        raise CheckpointRefused(
            "z_t of stage 1 does not fit stage 2",
            cause="; ".join(differing),
            remedy="use models that were trained together",
        )


def _wrong_stage(wanted: str, config: ModelConfig, source: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"this is not a {wanted} model",
        item=source,
        cause=f"its config.json says kind {config.kind!r}",
        remedy="swap --stage1 and --stage2, or pass the right folder",
    )
