"""The rows of an ablation as trainings and runs: each with a seed, in a folder named by content."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cir_core.errors import CirError, UsageError
from cir_core.training.presets import Preset
from flows.ablation.contents import Contents
from flows.ablation.declaration import (
    Declaration,
    Row,
    faults_of,
    read_declaration,
    unusable,
)
from flows.ablation_settings import AblationSettings
from flows.origins import with_folder
from flows.own import complete, open_dataset
from flows.recipes import changed_preset, merged, recipe_changes, recipe_text
from flows.settings import Settings, shipped_model
from flows.training_settings import TrainingSettings, settings_of_data
from storage.models.folders import model_sha256, read_config
from tasks.training.ledger import Ledger

DIGITS = 12
"""Of a digest in a folder's name."""

SLUG = 40
"""Letters of a row's name in its folder's."""


@dataclass(frozen=True)
class Trial:
    """One row with one seed. ``recipe`` is the text of the recipe that its training reads, and
    ``preset`` what it says; a row that is not trained has no ``training``, and one of stage 1 takes
    the run of another."""

    row: Row
    seed: int | None
    run: Settings
    training: TrainingSettings | None = None
    recipe: str = ""
    preset: Preset | None = None
    contents: Contents | None = None

    @property
    def ledger(self) -> Ledger | None:
        """How far its training is; None where there is none, or it has not begun."""
        return Ledger.read(self.training.out) if self.training else None

    @property
    def is_trained(self) -> bool:
        """Whether there is nothing left to train; the state of the optimiser is not looked at."""
        if self.training is None or self.preset is None:
            return True
        ledger = self.ledger
        has_best = (self.training.out / "best" / "config.json").is_file()
        is_done = ledger is not None and ledger.is_done(self.preset.stage2.patience) and has_best
        return is_done and not self.is_of_another

    @property
    def is_of_another(self) -> bool:
        """Whether a training of another recipe, of other models or data lies in its folder."""
        ledger = self.ledger
        if ledger is None or self.contents is None or self.preset is None or self.seed is None:
            return False
        return ledger.key != self.contents.key(self.preset, self.seed)


@dataclass(frozen=True)
class Checked:
    """An ablation without mistakes: ``data`` are the settings of all runs, and ``presets`` the
    recipe of each row that is trained, by its name, with the changes that make it."""

    declared: Declaration
    out: Path
    data: Settings
    stage1: Path
    presets: dict[str, tuple[Preset, str, dict[str, Any]]]


def check(settings: AblationSettings) -> Checked:
    """Raises UsageError, listing every mistake of the file, and what it names and is not there, at
    once."""
    declared = read_declaration(settings.config)
    faults = faults_of(declared)
    data, presets = settings.data, {}
    described = data
    try:
        data = shared_settings(declared, settings.data)
        described = complete(data)
        open_dataset(described)
        if data.dataset != "demo" and data.data_root is None:
            faults.append(f"data: dataset {data.dataset} needs data_root")
    except CirError as error:
        faults.append(f"data: {error.in_a_line}")
    shipped = shipped_model("stage1") if data.dataset == "demo" else None
    stage1 = declared.stage1 or described.stage1 or shipped
    if stage1 is None:
        faults.append("stage1: the finished stage 1 of all rows is not given")
    faults += _faults_of_models(declared, stage1)
    for row in declared.row:
        try:
            if row.trains:
                presets[row.name] = _preset(declared, row)
            _run_of(row, data, stage1, None)
        except CirError as error:
            faults.append(f"row {row.name!r}: {error.in_a_line}")
    if faults or stage1 is None:
        raise unusable(settings.config, faults)
    return Checked(declared, settings.out, data, stage1, presets)


def shared_settings(declared: Declaration, given: Settings) -> Settings:
    """What is set, over the file's ``[data]``, for whoever has not merged them (a form). Rows have
    their own stage 2, and run to their report, whatever is set for other runs. Raises UsageError.
    """
    told = given.model_dump(include=given.model_fields_set)
    own = {"stage2": None, "until": "report"}
    return _settings(with_folder(declared.data | told) | own)


def trials_of(checked: Checked, contents: Contents | None) -> list[Trial]:
    """All rows with all seeds, in the table's order; trainings are of these contents. Rows that
    differ in their runs alone share a training."""
    declared, data = checked.declared, contents.fingerprint if contents else ""
    models = {"stage1": model_sha256(checked.stage1), "data": data}
    if declared.base is not None:
        models["base"] = model_sha256(declared.base)
    folders: dict[str, Path] = {}
    trials = []
    for row in declared.row:
        if not row.trains:
            trials.append(Trial(row, None, _run_of(row, checked.data, checked.stage1, None)))
            continue
        trials += [
            _trained(checked, row, seed, models, folders, contents) for seed in declared.seeds
        ]
    return trials


def _trained(
    checked: Checked,
    row: Row,
    seed: int,
    models: dict[str, str],
    folders: dict[str, Path],
    contents: Contents | None,
) -> Trial:
    preset, base, changes = checked.presets[row.name]
    seeded = merged(changes, {"stage2": {"seed": seed}})
    digest = _digest(preset, seed, checked.declared.precision, models)
    if digest not in folders:
        folders[digest] = _folder(checked.out, row.name, seed, digest)
    out = folders[digest]
    training = TrainingSettings(
        stage="stage2",
        out=out,
        recipe=str(recipe_file(out)),
        data=settings_of_data(checked.data),
        base=checked.declared.base,
        stage1=checked.stage1,
        precision=checked.declared.precision,
    )
    run = _run_of(row, checked.data, checked.stage1, out / "best")
    return Trial(row, seed, run, training, recipe_text(base, seeded), preset, contents)


def recipe_file(out: Path) -> Path:
    """Beside a training's folder: the recipe that makes it."""
    return out.with_name(f"{out.name}.toml")


def _folder(out: Path, name: str, seed: int, digest: str) -> Path:
    """One with this content that is there, whatever its row was called then; or a new one."""
    there = [one for one in sorted(out.glob(f"*-{digest}")) if one.is_dir()]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:SLUG].strip("-") or "row"
    return there[0] if there else out / f"{slug}-seed{seed}-{digest}"


def _digest(preset: Preset, seed: int, precision: str, models: dict[str, str]) -> str:
    """Of all that the trained model depends on."""
    content = preset.model_dump(mode="json", include={"weights", "merge_from", "variant", "stage2"})
    content["stage2"]["seed"] = seed
    text = json.dumps(content | models | {"precision": precision}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _preset(declared: Declaration, row: Row) -> tuple[Preset, str, dict[str, Any]]:
    base, changes = recipe_changes(declared.recipe)
    changes = merged(merged(changes, declared.changes), row.changes)
    return changed_preset(base, changes, item=declared.recipe), base, changes


def _run_of(row: Row, data: Settings, stage1: Path | None, stage2: Path | None) -> Settings:
    models = {"stage1": stage1} if stage2 is None else {"stage1": stage1, "stage2": stage2}
    return _settings(data.model_dump() | models | row.run)


def _settings(values: dict[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = [f"{one['loc'][0]}: {one['msg']}" for one in error.errors()]
        raise UsageError("settings are not usable", cause="; ".join(faults)) from error


def _faults_of_models(declared: Declaration, stage1: Path | None) -> list[str]:
    """Folders that are named and hold no model."""
    named: Sequence[tuple[str, Path | None]] = (
        ("base", declared.base),
        ("stage1", stage1),
        *(
            (f"row {row.name!r}: run.{name}", _path(row, name))
            for row in declared.row
            for name in ("stage1", "stage2")
        ),
    )
    faults = []
    for what, folder in named:
        try:
            if folder is not None:
                read_config(folder)
        except CirError as error:
            faults.append(f"{what}: {error.in_a_line}")
    return faults


def _path(row: Row, name: str) -> Path | None:
    return Path(row.run[name]).expanduser() if name in row.run else None
