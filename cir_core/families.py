"""The families of models, by the kind that their ``config.json`` names: the only module that knows
them all. And tensors to a ready model, strictly."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from cir_core.errors import CheckpointRefused, NonFiniteError, UsageError
from cir_core.layers.shapes import require_all, shapes_alone
from cir_core.ports import ImageEncoder, Reranker, RerankerConfig, Retriever, RetrieverConfig
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.dual.reranker import DualReranker
from cir_core.rerankers.vlm.config import VlmConfig
from cir_core.rerankers.vlm.model import check_vlm, empty_vlm, load_vlm
from cir_core.rerankers.vlm.reranker import VlmReranker
from cir_core.retrievers.blip.config import DEMO_BLIP, PUBLISHED, Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.retrievers.clip.config import ClipConfig, InversionConfig
from cir_core.retrievers.clip.model import ClipModel, InversionModel
from cir_core.retrievers.siglip.config import SiglipConfig
from cir_core.retrievers.siglip.model import SiglipModel
from cir_core.types import Precision

TrainedConfig = Stage1Config | Stage2Config
"""Of what is trained here, and has a published format."""

ModelConfig = TrainedConfig | ClipConfig | SiglipConfig | InversionConfig
"""Of what conversions make."""

PUBLISHED_RETRIEVER: RetrieverConfig = PUBLISHED
"""What is counted with where no model is given."""


@dataclass(frozen=True)
class Family:
    """The classes of one kind: a config whose fields are ``config.json``'s, a model made of it,
    whose tensors are the weights, and what makes of that the ``Retriever`` of stage 1, or the
    ``Reranker`` of stage 2. It is built without numbers and takes those of its weights: what else
    it has, such as buffers that are not saved, is computed where it is used. One whose tensors have
    names of others' ``loads`` them itself, and ``checks`` shapes by names as a file has them; both
    raise CheckpointRefused. One that has fp32 alone in its ``precisions`` is never ``cast``."""

    stage: int
    config: type[BaseModel]
    model: Callable[[Any], nn.Module]
    port: Callable[[Any], Any]
    loads: Callable[[Any, Mapping[str, Tensor], str], nn.Module] | None = None
    checks: Callable[[Any, Mapping[str, tuple[int, ...]], str], None] | None = None
    precisions: Sequence[Precision] = get_args(Precision)


BLIP = Family(1, Stage1Config, Stage1Model, lambda model: model)

FAMILIES: dict[str, Family] = {
    "blip": BLIP,
    "stage1": BLIP,
    "clip": Family(1, ClipConfig, ClipModel, lambda model: model),
    "siglip": Family(1, SiglipConfig, SiglipModel, lambda model: model),
    "inversion": Family(1, InversionConfig, InversionModel, lambda model: model),
    "stage2": Family(2, Stage2Config, Stage2Model, DualReranker),
    "vlm": Family(2, VlmConfig, empty_vlm, VlmReranker, load_vlm, check_vlm),
}

Model = TypeVar("Model", bound=nn.Module)

_SHOWN = 5


def parse_config(content: Mapping[str, Any], source: str) -> Any:
    """A config of the family that ``kind`` names. Raises CheckpointRefused naming every wrong
    field."""
    family = FAMILIES.get(str(content.get("kind")))
    if family is None:
        kind, known = content.get("kind"), ", ".join(FAMILIES)
        raise _unusable(f"kind: is {kind!r}, and known are {known}", source)
    try:
        return family.config.model_validate(dict(content))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise _unusable(faults, source) from error


def retriever_config(content: Mapping[str, Any], source: str) -> RetrieverConfig:
    """Raises as ``parse_config``, and CheckpointRefused for a model of stage 2."""
    config: RetrieverConfig = _of_stage(1, parse_config(content, source), source)
    return config


def reranker_config(content: Mapping[str, Any], source: str) -> RerankerConfig:
    """Raises as ``parse_config``, and CheckpointRefused for a model of stage 1."""
    config: RerankerConfig = _of_stage(2, parse_config(content, source), source)
    return config


def load_retriever(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str
) -> Retriever:
    """Stage 1, in eval mode; a pre-trained base serves too (zero-shot).

    Raises as ``retriever_config``, CheckpointRefused for any missing, extra or misshapen tensor,
    and NonFiniteError for NaN or infinity in a weight.
    """
    retriever: Retriever = _met(retriever_config(content, source), tensors, source)
    return retriever


def load_reranker(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str
) -> Reranker:
    """Stage 2, in eval mode. Raises as ``load_retriever``."""
    reranker: Reranker = _met(reranker_config(content, source), tensors, source)
    return reranker


def load_encoder(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str
) -> ImageEncoder:
    """That of a model of either stage. Raises as ``load_retriever``."""
    encoder: ImageEncoder = _met(parse_config(content, source), tensors, source).encoder
    return encoder


def small_retriever() -> Retriever:
    """One with random weights that any machine can compute."""
    return Stage1Model(DEMO_BLIP).eval()


def load_model(config: Any, tensors: Mapping[str, Tensor], source: str) -> Any:
    """Of any family, in eval mode. Raises as ``load_retriever``."""
    family = FAMILIES[config.kind]
    if family.loads is None:
        with shapes_alone():  # weights that nobody reads need not be drawn
            model = family.model(config)
        loaded = load_strictly(model, tensors, source)
        assert not any(one.is_meta for one in loaded.buffers()), "computed where it is used"
        return loaded
    require_finite_weights(tensors, source)
    return family.loads(config, tensors, source)


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
    require_finite_weights(found, source)


def require_finite_weights(found: Mapping[str, Tensor], source: str) -> None:
    """Raises NonFiniteError."""
    broken = [name for name, tensor in found.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise NonFiniteError(
            "a checkpoint holds NaN or infinite weights",
            item=source,
            cause=f"{len(broken)} tensors: {', '.join(broken[:_SHOWN])}",
            remedy="download or train it again",
        )


def expected_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Every tensor of the config's model by name; takes no memory for them."""
    with shapes_alone():
        model = FAMILIES[config.kind].model(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_folder(config: Any, found: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Whether the tensors of a folder, by their shapes, are those of its config's model. Raises
    CheckpointRefused."""
    checks = FAMILIES[config.kind].checks
    if checks is None:
        check_shapes(expected_shapes(config), found, source)
    else:
        checks(config, found, source)


def check_shapes(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Raises CheckpointRefused listing the first missing, extra and misshapen names."""
    require_all(
        source,
        missing=expected.keys() - found.keys(),
        extra=found.keys() - expected.keys(),
        misshapen=(
            f"{name} is {found[name]}, expected {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ),
    )


def require_precisions(config: Any, asked: Iterable[Precision], source: str) -> None:
    """Raises UsageError for numbers in which the config's family does not compute."""
    known = FAMILIES[config.kind].precisions
    for precision in asked:
        if precision not in known:
            raise UsageError(
                f"this model does not compute in {precision}",
                item=source,
                cause=f"a model of kind {config.kind!r} computes in {', '.join(known)}",
                remedy="leave out --precision, or pass one of these for it: --encoder-precision, "
                "--stage1-precision, --stage2-precision",
            )


def require_pair(retriever: Retriever, reranker: Reranker) -> None:
    """Stage 2 must be able to follow stage 1. One that reads z_t must hold the same frozen
    encoder, too, since it was trained over what that sees; others bring their own, and a gallery is
    encoded twice where it is another. Raises CheckpointRefused naming what differs."""
    reads_z_t = reranker.config.state_width > 0
    differing = retriever.encoder.differing(reranker.encoder) if reads_z_t else ()
    require_fit(retriever.config, reranker.config, differing)


def require_fit(
    retriever: RetrieverConfig, reranker: RerankerConfig, differing: Sequence[str]
) -> None:
    """``differing`` names what their encoders have otherwise. Raises as ``require_pair``."""
    if reranker.state_width and not retriever.widths.z_t:
        raise CheckpointRefused(
            "stage 2 reads z_t, and this stage 1 has none",
            cause=f"a model of kind {retriever.kind!r} makes embeddings alone",
            remedy="use a stage 1 that fuses text and image (blip, stage1), or a stage 2 that "
            "reads images itself: variant.reference = image (docs/models.md)",
        )
    if differing:
        raise CheckpointRefused(
            "the two stages hold different visual encoders",
            cause=f"{len(differing)} tensors differ: {', '.join(differing[:_SHOWN])}",
            remedy="use a pair that was trained from the same frozen encoder",
        )
    objections = reranker.objections(retriever)
    if objections:
        raise CheckpointRefused(
            "stage 2 does not fit this stage 1",
            cause="; ".join(objections),
            remedy="use models that were trained together",
        )


def _met(config: Any, tensors: Mapping[str, Tensor], source: str) -> Any:
    """The model, as its port."""
    return FAMILIES[config.kind].port(load_model(config, tensors, source))


def _of_stage(stage: int, config: Any, source: str) -> Any:
    if FAMILIES[config.kind].stage != stage:
        raise CheckpointRefused(
            f"this is not a stage {stage} model",
            item=source,
            cause=f"its config.json says kind {config.kind!r}",
            remedy="swap --stage1 and --stage2, or pass the right folder",
        )
    return config


def _unusable(cause: str, source: str) -> CheckpointRefused:
    return CheckpointRefused(
        "a model's config.json is not usable",
        item=source,
        cause=cause,
        remedy="convert or train the model again with this version",
    )
