"""One training from start to end: resumed, told, validated, stopped early, and saved as best and
last."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cir_core.errors import CheckpointRefused, PreflightError
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.training.gradients import Compute, Objective
from cir_core.training.loop import Progress, fit, optimiser, total_steps
from cir_core.training.recipes import Recipe
from storage.atomic import commit_text, make_folder
from storage.models.folders import model_sha256
from storage.models.pickles import write_pickle
from tasks.models.opening import save_model
from tasks.training.journal import Journal
from tasks.training.ledger import Ledger, Spent, Stopwatch, ledger_key, training_key
from tasks.training.model_card import CARD_FILE, add_to_card, card_text
from tasks.training.patience import patience
from tasks.training.scores import Scores, gap_warnings

STATE_FILE = "state.pt"
"""What resumes a training, beside the models that it writes."""

SAVE_SECONDS = 120
"""Most work that a killed training loses."""

Validate = Callable[[Path], Scores]
"""Runs the pipeline over the selection queries with the model in this folder."""


@dataclass(frozen=True)
class Selection:
    """How the best checkpoint is found: the highest score of this name, asked every so many epochs
    and at the end, or until ``patience`` validations found none better. ``compares``: see
    ``gap_warnings``."""

    validate: Validate
    every: int
    by: str
    patience: int | None = None
    compares: bool = False

    def is_over(self, waited: int) -> bool:
        """After this many validations without a better one."""
        return self.patience is not None and waited >= self.patience


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """Where a training writes: checkpoints ``best`` and ``last``, their precision on disk, and
    what the model cards tell of the data."""

    folder: Path
    dtype: torch.dtype
    origin: dict[str, str]
    card: str


@dataclass
class _State:
    """How far a training is, the best checkpoint so far, how many validations since found none
    better, and what all cost."""

    step: int = 0
    best: float = float("-inf")
    validated: int = 0
    waited: int = 0
    spent: Spent = field(default_factory=Spent)


def run_training(
    objective: Objective,
    model: Stage1Model | Stage2Model,
    recipe: Recipe,
    compute: Compute,
    output: Output,
    selection: Selection | None,
) -> None:
    """Train to the end, from where an earlier run in the folder stopped, if it had the same recipe
    and the same origin (models it starts from, data); otherwise from the start.

    Without ``selection`` the last checkpoint is the best. Ctrl-C and SIGTERM let the step finish
    and save. Raises Diverged (both checkpoints stay), PreflightError.
    """
    make_folder(output.folder)
    adam = optimiser(objective, recipe)
    key = training_key(recipe, output.origin)
    state = _resume(output.folder / STATE_FILE, objective, adam, key)
    steps = total_steps(recipe, len(objective))
    if compute.leads:
        ledger = _ledger(key, state, steps, compute)
        if change := ledger.change_since(Ledger.read(output.folder)):
            _log.warning("%s %s", output.folder, change)
        ledger.write(output.folder)
    if state.step < steps and selection is not None and selection.is_over(state.waited):
        _log.info("stopped early at step %d, as patience asks", state.step)
        return
    saved, watch = time.monotonic(), Stopwatch(state.spent, compute.device)
    with Journal(output.folder, state.step, leads=compute.leads) as journal, patience() as asked:
        for progress in fit(objective, recipe, adam, compute, first_step=state.step):
            journal.step(progress)
            state.step = progress.step
            watch.steps()
            if _is_milestone(progress, selection):
                _checkpoint(model, recipe, compute, output, selection, state, journal, watch)
            due = time.monotonic() - saved > SAVE_SECONDS or progress.step == progress.steps
            if compute.leads and (due or asked or state.validated == state.step):
                _save_state(output.folder / STATE_FILE, objective, adam, key, state)
                _ledger(key, state, steps, compute).write(output.folder)
                saved = time.monotonic()
            if asked or (state.step < progress.steps and _stops(output, selection, state, journal)):
                break


def _ledger(key: str, state: _State, steps: int, compute: Compute) -> Ledger:
    """The state is written first: this never tells of more than can be gone on from."""
    of = (ledger_key(key), state.step, steps, state.waited, state.spent)
    return Ledger(*of, compute.precision)


def _stops(output: Output, selection: Selection | None, state: _State, journal: Journal) -> bool:
    """Whether selection has waited long enough; the journal and both model cards then say so."""
    if selection is None or not selection.is_over(state.waited):
        return False
    reason = f"no better selection {selection.by} in {state.waited} validations"
    journal.stopped(state.step, reason)
    if journal.leads:
        for name in ("best", "last"):
            add_to_card(output.folder / name, f"Stopped early, after step {state.step}: {reason}.")
    return True


def _is_milestone(progress: Progress, selection: Selection | None) -> bool:
    if progress.step == progress.steps:
        return True
    if selection is None or progress.epoch is None:
        return False
    return progress.epoch % selection.every == 0


def _checkpoint(
    model: Stage1Model | Stage2Model,
    recipe: Recipe,
    compute: Compute,
    output: Output,
    selection: Selection | None,
    state: _State,
    journal: Journal,
    watch: Stopwatch,
) -> None:
    """Write ``last``, run it on the selection queries, and keep it as ``best`` if it is."""
    better = False
    if compute.leads:
        last = output.folder / "last"
        save_model(model, last, dtype=output.dtype)
        scores = selection.validate(last) if selection is not None else Scores({})
        accuracy = journal.validation(state.step, scores)
        watch.validations()
        about = (output.card, output.origin, recipe, state.step, scores, accuracy, state.spent)
        commit_text(last / CARD_FILE, card_text(*about, model_sha256(last)))
        score = _score(scores, selection, state.step)
        if selection is not None:
            _warn(scores, selection, state.best, accuracy)
        better = score > state.best
        if better:
            best = output.folder / "best"
            save_model(model, best, dtype=output.dtype)
            commit_text(best / CARD_FILE, (last / CARD_FILE).read_text(encoding="utf-8"))
            state.best = score
            _log.info("step %d is the best so far", state.step)
        watch.validations()
        journal.spent(state.step, state.spent)
    state.validated = state.step
    state.waited = 0 if compute.any_of(better) else state.waited + 1
    compute.accelerator.wait_for_everyone()


def _warn(scores: Scores, selection: Selection, best: float, accuracy: float | None) -> None:
    by, compares = selection.by, selection.compares
    for told in gap_warnings(scores, by, best=best, accuracy=accuracy, compares=compares):
        _log.warning("%s", told)


def _score(scores: Scores, selection: Selection | None, step: int) -> float:
    """What decides: the selected metric, or, where nothing is measured, that it is later."""
    if selection is None:
        return float(step)
    if selection.by not in scores.metrics:
        raise PreflightError(
            f"validation does not measure {selection.by!r}",
            cause=f"it measures {', '.join(scores.metrics)}",
            remedy="set selected_by in the recipe to one of these",
        )
    return scores.metrics[selection.by].value


def _resume(file: Path, objective: Objective, adam: torch.optim.AdamW, key: str) -> _State:
    if not file.is_file():
        return _State()
    try:
        saved = torch.load(file, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, UnpicklingError, KeyError) as error:
        raise CheckpointRefused(
            "the saved state of a training is damaged",
            item=str(file),
            cause=str(error).splitlines()[0] if str(error) else type(error).__name__,
            remedy="delete it to start anew; the best and the last model beside it stay usable",
        ) from error
    if saved["key"] != key:
        _log.warning("recipe, models or data have changed since %s: starting anew", file)
        return _State()
    objective.trained.load_state_dict(saved["model"])
    adam.load_state_dict(saved["optimiser"])
    waited = saved.get("waited", 0)  # earlier versions did not count, and kept no time
    spent = Spent(**saved.get("spent", {"since": saved["step"]}))
    state = _State(saved["step"], saved["best"], saved["validated"], waited, spent)
    _log.info("resuming after step %d", state.step)
    return state


def _save_state(
    file: Path, objective: Objective, adam: torch.optim.AdamW, key: str, state: _State
) -> None:
    content: dict[str, Any] = {
        "model": objective.trained.state_dict(),
        "optimiser": adam.state_dict(),
        "key": key,
        "step": state.step,
        "best": state.best,
        "validated": state.validated,
        "waited": state.waited,
        "spent": asdict(state.spent),
    }
    write_pickle(file, content)
