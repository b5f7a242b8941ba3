"""How a checkpoint is judged: by runs of the pipeline over queries that no training has seen."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cir_core.metrics.recall import AVERAGE
from flows.engines.engine import Engine
from flows.run import find_candidates, resolve_inputs, run_pipeline
from flows.settings import Settings
from storage.artifacts import Artifact
from storage.lock import hold_store
from tasks.stages.evaluate import stage1_metrics
from tasks.stages.pair import check_stage1
from tasks.training.scores import Score, Scores

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage1Judge:
    """Scores of a stage 1 on the queries of these settings, by the pipeline's own tasks."""

    settings: Settings
    engine: Engine

    def __call__(self, model: Path) -> Scores:
        settings = self.settings.model_copy(update={"stage1": model, "stage2": model})
        inputs, store = resolve_inputs(settings), settings.store
        with hold_store(store):
            checked = self.engine.run(check_stage1, store, model)
            found = find_candidates(settings, inputs, checked, self.engine)
            metrics = self.engine.run(
                stage1_metrics, store, found.ingested.fingerprint, found.candidates.fingerprint
            )
        return Scores(_scores(map(asdict, metrics), "stage1"))


@dataclass(frozen=True)
class Stage2Judge:
    """Scores of a pair on the queries of these settings: a whole run of the pipeline, which the
    catalog and the reports of the store keep."""

    settings: Settings
    engine: Engine

    def __call__(self, model: Path) -> Scores:
        settings = self.settings.model_copy(update={"stage2": model})
        run = run_pipeline(settings, self.engine)
        if run.changed:
            _log.warning("inputs have changed since they were used: %s", ", ".join(run.changed))
        metrics = Artifact(settings.store, "evaluate", run.evaluated).read("metrics").to_pylist()
        return Scores(_scores(metrics, "stage2"), _scores(metrics, "gain"))


def _scores(metrics: Iterable[Mapping[str, Any]], stage: str) -> dict[str, Score]:
    """The gallery's numbers by name; macro averages, or those of the only category."""
    mine = [row for row in metrics if row["stage"] == stage and row["pool"] == "gallery"]
    averaged = [row for row in mine if row["category"] == AVERAGE] or mine
    return {
        f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]: Score(
            row["value"], row["ci_low"], row["ci_high"], row["n"]
        )
        for row in averaged
    }
