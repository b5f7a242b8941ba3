"""Costs of scoring that compare: all measured on one machine in one sitting, and kept."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from flows.engines.engine import Engine
from storage.atomic import commit_text
from tasks.machine import Machine
from tasks.planning.scoring_cost import Scoring, ScoringCost, measure_each

COSTS_FILE = "costs.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """The file: what the machine was, and the costs of runs by their names."""

    sitting: Mapping[str, Any]
    costs: Mapping[str, ScoringCost]


def measured(folder: Path, runs: Mapping[str, Scoring], engine: Engine) -> dict[str, ScoringCost]:
    """The costs of these runs, by their names. Where one is not known from the last sitting, or
    that was on another device, with another number of threads or other settings of the machine, all
    are measured again."""
    if not runs:
        return {}
    sitting = _sitting(next(iter(runs.values())).machine)
    kept = _read(folder / COSTS_FILE)
    if kept.sitting != sitting or not runs.keys() <= kept.costs.keys():
        _log.info("timing the scoring of %d runs, one after the other", len(runs))
        found = engine.run(measure_each, list(runs.values()))
        kept = Kept(sitting, dict(zip(runs, found, strict=True)))
        commit_text(folder / COSTS_FILE, json.dumps(asdict(kept), indent=1) + "\n")
    return {name: kept.costs[name] for name in runs}


def _sitting(machine: Machine) -> dict[str, Any]:
    on_gpu = machine.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(machine.device) if on_gpu else "CPU",
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "batch": machine.batch,
        "memory": machine.memory,
        "tokens": machine.tokens,
    }


def _read(file: Path) -> Kept:
    """Nothing where it is not there, damaged, or of another version: then all is measured."""
    try:
        return TypeAdapter(Kept).validate_json(file.read_bytes())
    except FileNotFoundError:
        return Kept({}, {})
    except ValidationError as error:
        one = error.errors()[0]
        place = ".".join(map(str, one["loc"]))
        _log.warning("%s is not usable (%s %s): measuring again", file, place, one["msg"])
        return Kept({}, {})
