"""How a checkpoint is judged: by runs of the pipeline over queries that no training has seen."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cir_core.metrics.recall import AVERAGE
from flows.engines.engine import Engine
from flows.graph import filtering_of
from flows.inputs import resolve_inputs
from flows.run import find_candidates, ingest_split, run_pipeline
from flows.settings import Settings
from tasks.stages.evaluate import stage1_metrics
from tasks.stages.pair import check_stage1
from tasks.training.scores import Score, Scores

OWN = dict.fromkeys(("candidates", "embeddings"))
"""What is handed over to runs says nothing of a model in training."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage1Judge:
    """Scores of a stage 1 on the queries of these settings, by the pipeline's own tasks."""

    settings: Settings
    engine: Engine

    def __call__(self, model: Path) -> Scores:
        settings = self.settings.model_copy(update={"stage1": model, "stage2": model} | OWN)
        inputs = resolve_inputs(settings)
        store = inputs.store
        with store.lease():
            checked = self.engine.run(check_stage1, store, model).view
            ingested = ingest_split(settings, inputs, self.engine).ingested
            filtering = filtering_of(inputs, ingested, checked)
            find_candidates(settings, inputs, ingested, filtering, self.engine)
            candidates = filtering.retrieve.made
            metrics = self.engine.run(stage1_metrics, ingested, candidates)
        return Scores(_scores(map(asdict, metrics), "stage1"))


@dataclass(frozen=True)
class Stage2Judge:
    """Scores of a pair on the queries of these settings: a whole run of the pipeline, which the
    catalog and the reports of the store keep."""

    settings: Settings
    engine: Engine

    def __call__(self, model: Path) -> Scores:
        settings = self.settings.model_copy(update={"stage2": model} | OWN)
        run = run_pipeline(settings, self.engine)
        if run.changed:
            _log.warning("inputs have changed since they were used: %s", ", ".join(run.changed))
        metrics = run.evaluated.read("metrics").to_pylist()
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
