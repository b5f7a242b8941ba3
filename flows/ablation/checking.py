"""An ablation's file, its models and its runs, checked before any work."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cir_core.errors import CirError, UsageError
from cir_core.training.presets import Preset
from flows.ablation.declaration import (
    Declaration,
    Row,
    faults_of,
    read_declaration,
    unusable,
)
from flows.ablation.foresight import (
    require_one_encoder,
    require_pair,
    require_runnable,
    require_trainable,
    require_weighed,
)
from flows.ablation_settings import AblationSettings
from flows.origins import with_folder
from flows.own import complete, open_dataset
from flows.recipes import changed_preset, merged, recipe_changes
from flows.settings import Settings, in_home, shipped_model
from storage.models.folders import read_config
from storage.sources.roots import require_root


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
    data, described, presets = settings.data, settings.data, {}
    of_data: list[str] = []
    try:
        data = shared_settings(declared, settings.data)
        described = complete(data)
        open_dataset(described)
        if data.dataset != "demo" and data.data_root is None:
            of_data.append(f"data: dataset {data.dataset} needs data_root")
        elif data.data_root is not None:
            require_root(data.data_root)
    except CirError as error:
        of_data.append(f"data: {error.in_a_line}")
    shipped = shipped_model("stage1") if data.dataset == "demo" else None
    stage1 = declared.stage1 or described.stage1 or shipped
    if stage1 is None:
        faults.append("stage1: the finished stage 1 of all rows is not given")
    broken = _broken_models(declared, stage1)
    faults += of_data + [f"{what}: {fault}" for what, _, fault in broken]
    folders = {folder for _, folder, _ in broken}
    for row in declared.row:
        try:
            if row.trains:
                presets[row.name] = _preset(declared, row)
            run = run_of(row, data, stage1, settings.out if row.trains else None)
        except CirError as error:
            faults.append(f"row {row.name!r}: {error.in_a_line}")
            continue
        if row.stage > 1 and not of_data and run.stage1 is not None:
            preset = presets[row.name][0] if row.trains else None
            told = _foreseen(run, preset, declared.base, folders)
            faults += [f"row {row.name!r}: {fault}" for fault in told]
    faults += _faults_of_encoders(declared, stage1, folders)
    if faults or stage1 is None:
        raise unusable(settings.config, faults)
    return Checked(declared, settings.out, data, stage1, presets)


def _foreseen(
    run: Settings, preset: Preset | None, base: Path | None, broken: Collection[Path]
) -> list[str]:
    """What would stop a row later, but for models that are ``broken``: these are told already. With
    a ``preset`` its stage 2 is still to be trained, from the base."""
    stage1, stage2, faults = run.stage1, run.stage2, []
    questions: list[Callable[[], None]] = [lambda: require_runnable(run)]
    if stage1 is not None and stage1 not in broken:
        questions.append(lambda: require_weighed(run))
        if preset is None and stage2 not in broken:
            questions.append(lambda: require_pair(run))
        if preset is not None and base is not None and base not in broken:
            questions.append(lambda: require_trainable(preset, run, base, stage1))
    for question in questions:
        try:
            question()
        except CirError as error:
            faults.append(error.in_a_line)
            if question is questions[0]:
                break  # nothing else can be asked
    return faults


def _faults_of_encoders(
    declared: Declaration, stage1: Path | None, broken: Collection[Path]
) -> list[str]:
    base = declared.base
    if base is None or stage1 is None or not any(row.trains for row in declared.row):
        return []
    if not {base, stage1}.isdisjoint(broken):
        return []
    try:
        require_one_encoder(base, stage1)
    except CirError as error:
        return [f"base: {error.in_a_line}"]
    return []


def shared_settings(declared: Declaration, given: Settings) -> Settings:
    """What is set, over the file's ``[data]``, for whoever has not merged them (a form). Rows have
    their own stage 2, and run to their report, whatever is set for other runs. Raises UsageError.
    """
    told = given.model_dump(include=given.model_fields_set)
    own = {"stage2": None, "until": "report"}
    return _settings(with_folder(declared.data | told) | own)


def _preset(declared: Declaration, row: Row) -> tuple[Preset, str, dict[str, Any]]:
    base, changes = recipe_changes(declared.recipe)
    changes = merged(merged(changes, declared.changes), row.changes)
    return changed_preset(base, changes, item=declared.recipe), base, changes


def run_of(row: Row, data: Settings, stage1: Path | None, stage2: Path | None) -> Settings:
    """The settings of a row's run with these models, where it names no others; a name is but one
    run's, and no row's. Raises UsageError listing every value that is of no use."""
    models = {"stage1": stage1} if stage2 is None else {"stage1": stage1, "stage2": stage2}
    return _settings(data.model_dump() | models | row.run | {"run_name": None})


def _settings(values: dict[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = [f"{one['loc'][0]}: {one['msg']}" for one in error.errors()]
        raise UsageError("settings are not usable", cause="; ".join(faults)) from error


def _broken_models(declared: Declaration, stage1: Path | None) -> list[tuple[str, Path, str]]:
    """Folders that are named and hold no model: where, which, and why."""
    named: Sequence[tuple[str, Path | None]] = (
        ("base", declared.base),
        ("stage1", stage1),
        *(
            (f"row {row.name!r}: run.{name}", _path(row.run.get(name)))
            for row in declared.row
            for name in ("stage1", "stage2")
        ),
    )
    broken = []
    for what, folder in named:
        if folder is None:
            continue
        try:
            read_config(folder)
        except CirError as error:
            broken.append((what, folder, error.in_a_line))
    return broken


def _path(value: Any) -> Path | None:
    """None of what is no path, which the settings of the run tell."""
    return in_home(Path(value)) if isinstance(value, str) else None
