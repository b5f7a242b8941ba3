"""An ablation, composed: what is missing is trained and run, and all is compared in one table."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.ablation.checking import Checked, check
from flows.ablation.contents import Contents
from flows.ablation.costs import measured
from flows.ablation.rendering import FILES, render
from flows.ablation.table import Finished, Table, table_of
from flows.ablation.trials import Trial, recipe_file, trials_of
from flows.ablation_settings import AblationSettings
from flows.engines.engine import Engine
from flows.inputs import resolve_inputs
from flows.leasing import leased
from flows.run import ingest_split, run_pipeline
from flows.train import run_training
from flows.training_settings import settings_of_data
from storage.atomic import commit_text
from storage.store import open_store
from tasks.planning.scoring_cost import Scoring

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ablated:
    """The table, and its files: a page, Markdown, LaTeX, JSON."""

    table: Table
    files: tuple[Path, ...]


def list_trials(settings: AblationSettings, engine: Engine) -> list[Trial]:
    """What there is to train and to run, in order. Nothing is trained or run; the training split is
    ingested, whose content names folders, and the recipe of each training is written beside its
    folder. Raises UsageError listing every mistake of the file at once."""
    return _prepare(check(settings), engine)


def run_ablation(settings: AblationSettings, engine: Engine) -> Ablated:
    """Train and run what is missing, row by row, and write the table.

    The same call after a kill goes on where it was; a training that was begun by hand, with the
    same recipe and data in the same folder, is gone on with; one of something else starts anew, and
    a line says so. Raises as ``list_trials``, ``run_training`` and
    ``run_pipeline``.
    """
    checked = check(settings)
    trials = _prepare(checked, engine)
    for number, trial in enumerate(trials, start=1):
        if not trial.is_trained and trial.training is not None:
            _log.info(
                "training %d of %d: %s, seed %s", number, len(trials), trial.row.name, trial.seed
            )
            if trial.is_of_another:
                _log.warning(
                    "%s holds a training of another recipe, of other models or data: it starts "
                    "anew", trial.training.out,
                )  # fmt: skip
            run_training(trial.training, engine)
    finished = _run_all(trials, engine)
    table = table_of(finished, measured(checked.out, _to_measure(finished), engine))
    return Ablated(table, _write(checked, settings, table))


def _prepare(checked: Checked, engine: Engine) -> list[Trial]:
    trials = trials_of(checked, _contents(checked, engine))
    for trial in trials:
        if trial.training is not None:
            file = recipe_file(trial.training.out)
            if not file.is_file() or file.read_text(encoding="utf-8") != trial.recipe:
                commit_text(file, trial.recipe)
    return trials


def _contents(checked: Checked, engine: Engine) -> Contents | None:
    """None where nothing is trained."""
    base = checked.declared.base
    if base is None or not any(row.trains for row in checked.declared.row):
        return None
    trained = {"split": "train", "stage1": base, "stage2": base}
    asked = settings_of_data(checked.data).model_copy(update=trained)
    inputs = resolve_inputs(asked)
    with leased(inputs.store, asked.wait):
        return Contents(inputs, ingest_split(asked, inputs, engine).ingested, checked.stage1)


def _run_all(trials: Sequence[Trial], engine: Engine) -> list[Finished]:
    """Rows of stage 1 take the run of the first row that has a stage 2."""
    own = next(trial.run for trial in trials if trial.row.stage > 1)
    finished = []
    for trial in trials:
        settings = trial.run if trial.row.stage > 1 else own
        _log.info("running %s", trial.row.name)
        run = run_pipeline(settings, engine)
        if run.changed:
            _log.warning("inputs have changed since they were used: %s", ", ".join(run.changed))
        finished.append(Finished(trial, run.evaluated, resolve_inputs(settings).k))
    return finished


def _to_measure(finished: Sequence[Finished]) -> dict[str, Scoring]:
    """By run: of each row its first seed."""
    found: dict[str, Scoring] = {}
    rows = set()
    for one in finished:
        name = one.trial.row.name
        if one.trial.row.stage > 1 and name not in rows:
            inputs = resolve_inputs(one.trial.run)
            assert inputs.stage2 is not None, "rows run to their end"
            found[one.evaluated.run_id] = Scoring(
                one.evaluated,
                inputs.data_root,
                inputs.stage1,
                inputs.stage2,
                inputs.precision,
                inputs.machine,
            )
        rows.add(name)
    return found


def _write(checked: Checked, settings: AblationSettings, table: Table) -> tuple[Path, ...]:
    """Below the store, in a folder that is named after the rows and their runs."""
    store = open_store(checked.data.store)
    content = json.dumps([[row.name, *row.runs] for row in table.rows])
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", settings.config.stem)
    folder = f"ablations/{stem}-{digest}"
    for name, text in render(table, title=settings.config.stem).items():
        store.put_text(f"{folder}/{name}", text)
    return tuple(store.local(f"{folder}/{name}") for name in FILES)
