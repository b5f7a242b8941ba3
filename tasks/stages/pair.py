"""Are these two models a pair? Asked before any work, since stage 2 is met hours later."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cir_core.families import require_pair, reranker_config, retriever_config
from storage.identities import Identity
from storage.models.folders import read_identity
from storage.store import Store
from storage.view import Made
from storage.views import Pair
from tasks.models.opening import open_reranker, open_retriever

VERSION = 2


def check_stage1(store: Store, stage1: Path) -> Made[Pair]:
    """The artifact ``pair`` of a stage 1 that is asked alone, as while it trains. Raises as
    ``check_pair``."""
    sha256 = read_identity(stage1).sha256

    def check() -> None:
        open_retriever(stage1, sha256=sha256)

    return _checked(store, {}, {"stage1": sha256}, check)


def check_pair(store: Store, stage1: Path, stage2: Path) -> Made[Pair]:
    """The artifact ``pair``, without parts: its manifest says that both models were loaded
    strictly, are finite, and hold the same visual encoder, tensor by tensor. Its inputs name the
    models' bytes, and whoever opens one of them later insists on that name; its settings name the
    prior with which stage 2's scores are made.

    Raises CheckpointRefused, or NonFiniteError, saying which model is wrong and how, and
    PreflightError when one changes meanwhile.
    """
    first, second = read_identity(stage1), read_identity(stage2)
    retriever_config(first.config, str(stage1))
    prior = reranker_config(second.config, str(stage2)).prior
    weights = {"stage1": first.sha256, "stage2": second.sha256}

    def check() -> None:
        require_pair(
            open_retriever(stage1, sha256=first.sha256),
            open_reranker(stage2, sha256=second.sha256),
        )

    return _checked(store, {"prior": prior}, weights, check)


def _checked(
    store: Store, settings: Mapping[str, Any], weights: Mapping[str, str], check: Callable[[], None]
) -> Made[Pair]:
    identity = Identity("pair", VERSION, settings, weights)
    pair = Pair.named(store, identity)
    reused = pair.is_done
    if not reused:
        check()
        pair.finish(identity, [])
    return Made(pair, reused)
