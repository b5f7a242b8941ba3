"""What would stop a row's training or its run, asked before any work."""

from pathlib import Path

from cir_core.errors import CheckpointRefused, PreflightError
from cir_core.families import require_fit
from cir_core.training.presets import Preset
from flows.first_stage import files_of, require_no_prior
from flows.inputs import resolve_inputs
from flows.settings import Settings
from flows.train import require_measured
from tasks.models.opening import open_encoder, read_reranker_config, read_retriever_config
from tasks.stages.fuse import weight_of
from tasks.training.train import require_beginning


def require_runnable(run: Settings) -> None:
    """Whether a run's settings go together on this machine, and what it is handed over is there;
    no model is asked. Raises as ``resolve_inputs``, and PreflightError."""
    missing = [str(file) for file in files_of(resolve_inputs(run)) if not file.is_file()]
    if missing:
        raise PreflightError(
            "what is handed over to a run is not there",
            item=", ".join(missing),
            remedy="docs/first-stages.md tells what such files are",
        )


def require_weighed(run: Settings) -> None:
    """Whether stage 1 is one, and weighs image and text if it is asked to. Raises CheckpointRefused
    and UsageError."""
    inputs = resolve_inputs(run)
    weight_of(read_retriever_config(inputs.stage1), inputs.text_weight, str(inputs.stage1))


def require_pair(run: Settings) -> None:
    """Whether the run's finished stage 2 can follow its stage 1. Raises CheckpointRefused, and
    UsageError for one that adds the score of a stage 1 which does not choose candidates."""
    inputs = resolve_inputs(run)
    assert inputs.stage2 is not None, "rows run to their end"
    retriever = read_retriever_config(inputs.stage1)
    reranker = read_reranker_config(inputs.stage2)
    require_no_prior(inputs, reranker.prior)
    require_fit(retriever, reranker, ())
    if reranker.state_width:
        encoders = open_encoder(inputs.stage1), open_encoder(inputs.stage2)
        require_fit(retriever, reranker, encoders[0].differing(encoders[1]))


def require_trainable(preset: Preset, data: Settings, base: Path, stage1: Path) -> None:
    """Whether a stage 2 of this recipe can be trained from these models and chosen among its
    checkpoints. Raises CheckpointRefused and UsageError."""
    require_beginning(base, stage1, preset.merge_from)
    require_measured(data, preset.stage2)


def require_one_encoder(base: Path, stage1: Path) -> None:
    """Whether stage 2 would see what stage 1 saw. Raises CheckpointRefused."""
    differing = open_encoder(stage1).differing(open_encoder(base))
    if differing:
        raise CheckpointRefused(
            "the base and stage 1 hold different visual encoders",
            item=f"{base} and {stage1}",
            cause=f"{len(differing)} tensors differ",
            remedy="name the base that this stage 1 was trained from",
        )
