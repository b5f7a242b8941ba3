"""Are these two models a pair? Asked before any work, since stage 2 is met hours later."""

from pathlib import Path

from cir_core.models.load import as_stage1, as_stage2, parse_config, require_same_vision
from storage.artifacts import Artifact, Identity, Made
from storage.checkpoints import model_sha256, read_config
from tasks.models import open_stage1, open_stage2

VERSION = 2


def check_stage1(store: Path, stage1: Path) -> Made:
    """The artifact ``pair`` of a stage 1 that is asked alone, as while it trains. Raises as
    ``check_pair``."""
    identity = Identity("pair", VERSION, settings={}, inputs={"stage1": model_sha256(stage1)})
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    open_stage1(stage1)
    artifact.finish(identity, [])
    return Made(identity.fingerprint, reused=False)


def check_pair(store: Path, stage1: Path, stage2: Path) -> Made:
    """The artifact ``pair``, without parts: its manifest says that both models were loaded
    strictly, are finite, and hold the same visual encoder, tensor by tensor. Its inputs name the
    models' bytes, so that later stages need not hash gigabytes again, and its settings the prior
    with which stage 2's scores are made.

    Raises CheckpointRefused, or NonFiniteError, saying which model is wrong and how.
    """
    weights = {"stage1": model_sha256(stage1), "stage2": model_sha256(stage2)}
    as_stage1(parse_config(read_config(stage1), str(stage1)), str(stage1))
    prior = as_stage2(parse_config(read_config(stage2), str(stage2)), str(stage2)).prior
    identity = Identity("pair", VERSION, settings={"prior": prior}, inputs=weights)
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    require_same_vision(open_stage1(stage1), open_stage2(stage2))
    artifact.finish(identity, [])
    return Made(identity.fingerprint, reused=False)
