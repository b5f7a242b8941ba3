"""Costs of scoring that compare: all measured on one machine in one sitting, and kept."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from flows.engines.engine import Engine
from storage.atomic import commit_text
from tasks.planning.scoring_cost import Scoring, ScoringCost, measure_each

COSTS_FILE = "costs.json"

_log = logging.getLogger(__name__)


def measured(folder: Path, runs: Mapping[str, Scoring], engine: Engine) -> dict[str, ScoringCost]:
    """The costs of these runs, by their names. Where one is not known from the last sitting, or
    that was on another device or another number of threads, all are measured again."""
    if not runs:
        return {}
    sitting = _sitting(next(iter(runs.values())).machine.device)
    kept = _read(folder / COSTS_FILE)
    costs: dict[str, Any] = kept.get("costs", {}) if kept.get("sitting") == sitting else {}
    if not runs.keys() <= costs.keys():
        _log.info("timing the scoring of %d runs, one after the other", len(runs))
        found = engine.run(measure_each, list(runs.values()))
        costs = {name: asdict(cost) for name, cost in zip(runs, found, strict=True)}
        content = {"sitting": sitting, "costs": costs}
        commit_text(folder / COSTS_FILE, json.dumps(content, indent=1) + "\n")
    return {name: ScoringCost(**costs[name]) for name in runs}


def _sitting(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return {"device": name, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}


def _read(file: Path) -> dict[str, Any]:
    """Nothing where it is not there, or damaged: then all is measured."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        _log.warning("%s is damaged (%s): measuring again", file, error)
        return {}
    return content if isinstance(content, dict) else {}
