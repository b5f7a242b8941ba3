"""How far a training is and what it has cost so far, in a small file beside its state."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Self

import torch

from cir_core.memory import peak_memory
from cir_core.training.recipes import Recipe
from storage.atomic import commit_text

LEDGER_FILE = "training.json"

UNKEYED = {"patience"}
"""Of a recipe: what changes no weights, only how long is trained."""

_log = logging.getLogger(__name__)


def training_key(recipe: Recipe, origin: Mapping[str, str]) -> str:
    """All that a training is of, as text; ``origin`` names the models it starts from, and data."""
    return json.dumps({"recipe": recipe.model_dump(mode="json", exclude=UNKEYED), **origin})


def ledger_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass
class Spent:
    """Wall seconds of the steps that made the model (saving the state included), of validations
    (checkpoints included), and the process's peak memory in bytes, over all runs of a training.

    Steps that a kill lost, and what each run does before its first step, are not counted. Only the
    steps after ``since`` are: an earlier version, which kept no time, made those up to it.
    """

    steps: float = 0.0
    validations: float = 0.0
    peak_memory: int = 0
    since: int = 0

    def __str__(self) -> str:
        part = f" (since step {self.since})" if self.since else ""
        memory = f"{self.peak_memory / 2**30:.2f} GiB at the peak"
        return (
            f"{self.steps:.0f} s of steps, {self.validations:.0f} s of validations{part}, {memory}"
        )

    @property
    def line(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "seconds": round(self.steps, 3),
            "validation_seconds": round(self.validations, 3),
        } | {
            "seconds_since_step": self.since,
            "peak_memory_bytes": self.peak_memory,
        }


class Stopwatch:
    """Adds the time since it was last asked to what has been spent."""

    def __init__(self, spent: Spent, device: torch.device) -> None:
        self._spent, self._device, self._last = spent, device, monotonic()

    def steps(self) -> None:
        """The time since then went into steps."""
        self._spent.steps += self._lap()

    def validations(self) -> None:
        """The time since then went into checkpoints and their validation."""
        self._spent.validations += self._lap()

    def _lap(self) -> float:
        self._spent.peak_memory = max(self._spent.peak_memory, peak_memory(self._device))
        last, self._last = self._last, monotonic()
        return self._last - last


@dataclass(frozen=True)
class Ledger:
    """``key`` is ``ledger_key`` of what the training is of (recipe, models, data); ``waited`` the
    validations since the best one; ``precision`` of its steps, the last ones where a training was
    gone on with in another, None as an earlier version left it."""

    key: str
    step: int
    of: int
    waited: int
    spent: Spent
    precision: str | None = None

    def is_done(self, patience: int | None) -> bool:
        """Whether its steps are made, or validations have waited as long as ``patience`` says."""
        return self.step >= self.of or (patience is not None and self.waited >= patience)

    def change_since(self, before: Self | None) -> str | None:
        """That a training which was begun is gone on with in another precision, to warn of."""
        known = before is not None and before.key == self.key and 0 < before.step < before.of
        if before is None or not known or before.precision in (None, self.precision):
            return None
        return (
            f"was trained in {before.precision} up to step {before.step}, and is gone on with in "
            f"{self.precision}"
        )

    def write(self, folder: Path) -> None:
        commit_text(folder / LEDGER_FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """That of a training's folder; None where there is none, or none that can be read: the
        training itself, asked to go on, finds its state and writes it again."""
        file = folder / LEDGER_FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return cls(**(content | {"spent": Spent(**content["spent"])}))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            _log.warning("%s is damaged (%s): its training is asked instead", file, error)
            return None
