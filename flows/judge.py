"""How a checkpoint is judged: by runs of the pipeline over queries that no training has seen."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cir_core.metrics.recall import AVERAGE
from flows.engines.engine import Engine
from flows.graph import graph_of
from flows.inputs import resolve_inputs
from flows.leasing import leased
from flows.run import check_models, ingest_split, make_stages, run_pipeline
from flows.settings import Settings
from flows.training_settings import settings_of_data
from storage.views import Evaluated
from tasks.training.scores import Score, Scores

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage1Judge:
    """Scores of a stage 1 on the queries of these settings: a run that ends with candidates, but
    for the catalog and a page."""

    settings: Settings
    engine: Engine

    def __call__(self, model: Path) -> Scores:
        mine = {"stage1": model, "until": "retrieve"}
        settings = settings_of_data(self.settings).model_copy(update=mine)
        inputs = resolve_inputs(settings)
        with leased(inputs.store, settings.wait):
            checked = check_models(inputs, self.engine).view
            ingested = ingest_split(settings, inputs, self.engine).ingested
            graph = graph_of(inputs, ingested, checked)
            make_stages(settings, inputs, ingested, graph, self.engine)
        assert graph.evaluated is not None
        return Scores(_scores(_metrics(graph.evaluated), "stage1"))


@dataclass(frozen=True)
class Stage2Judge:
    """Scores of a pair on the queries of these settings: a whole run of the pipeline, which the
    catalog and the reports of the store keep."""

    settings: Settings
    engine: Engine

    def __call__(self, model: Path) -> Scores:
        mine = {"stage2": model, "until": "report"}
        settings = settings_of_data(self.settings).model_copy(update=mine)
        run = run_pipeline(settings, self.engine)
        if run.changed:
            _log.warning("inputs have changed since they were used: %s", ", ".join(run.changed))
        metrics = _metrics(run.evaluated)
        return Scores(_scores(metrics, "stage2"), _scores(metrics, "gain"))


def _metrics(evaluated: Evaluated) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = evaluated.read("metrics").to_pylist()
    return rows


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
