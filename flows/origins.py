"""Where the values of settings come from: flags over ``CIR_*`` environment over ``cir.toml`` over
defaults; in the file, the dataset's own section over what holds for all.

The only reader of the environment and of ``cir.toml``.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cir_core.datasets.registry import DATASETS
from cir_core.errors import UsageError
from flows.ablation_settings import AblationSettings
from flows.comparison_settings import ComparisonSettings
from flows.settings import Settings, in_home
from flows.training_settings import TrainingSettings

SETTINGS_FILE = "cir.toml"
PREFIX = "CIR_"
SECTIONS = "datasets"
"""The table of ``cir.toml`` whose tables are settings of one dataset each."""
GENERAL = ("dataset", "store")
"""What no section may set: it is found by the dataset, and one store holds the runs of all, which
``sql`` and ``export`` ask without naming one."""

Checked = TypeVar("Checked", bound=BaseModel)

DECLARED_DATA = "the ablation's [data]"

NO_SETTING = "there is no such setting"


@dataclass(frozen=True)
class Resolved:
    """Settings and where each value came from."""

    settings: Settings
    origins: dict[str, str]


def resolve(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    folder: Path = Path(),
    declared: Mapping[str, Any] | None = None,
) -> Resolved:
    """Merge the sources. A flag that is None or empty was not given; ``declared`` is what an
    ablation's file says of its data, over the environment and below flags.

    Raises UsageError listing every mistake at once, also in sections of other datasets, with the
    source of each value.
    """
    general = _read_toml(folder / SETTINGS_FILE)
    sections = general.pop(SECTIONS, {})
    layers = _with_folders(
        [
            (SETTINGS_FILE, general),
            ("environment", _read_environment(environment)),
            (DECLARED_DATA, declared or {}),
            ("flag", {k: v for k, v in flags.items() if v not in (None, (), [])}),
        ]
    )
    faults = _faults_of_sections(sections)
    if not faults:
        own_root = sections.get("own", {}).get("data_root")
        with_folder({"dataset": general.get("dataset"), "data_root": own_root})  # one of the two
        named = [values["dataset"] for _, values in layers if "dataset" in values]
        dataset = str(named[-1] if named else Settings.model_fields["dataset"].default)
        layers.insert(1, (_section(dataset), sections.get(dataset, {})))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, layer in layers:
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    faults += _faults(values, origins)
    if faults:
        raise UsageError(
            "some settings are not usable",
            cause="; ".join(faults),
            remedy=f"correct them there; known are {', '.join(Settings.model_fields)}; "
            "`cir-pipeline run --help` tells what is allowed",
        )
    return Resolved(Settings(**values), origins)


def parse_training(
    flags: Mapping[str, Any], environment: Mapping[str, str], **values: Any
) -> TrainingSettings:
    """The flags that a run has too, resolved as a run's, and the training's own ``values``.

    Raises UsageError listing every mistake at once.
    """
    data = resolve(flags, environment).settings
    return _checked(TrainingSettings, "train", data=data, **values)


def parse_comparison(**values: Any) -> ComparisonSettings:
    """Raises UsageError listing every mistake at once."""
    return _checked(ComparisonSettings, "compare", **values)


def _checked(settings: type[Checked], command: str, **values: Any) -> Checked:
    try:
        return settings(**values)
    except ValidationError as error:
        raise UsageError(
            f"some settings of {command} are not usable",
            cause="; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors()),
            remedy=f"`cir-pipeline {command} --help` tells what is allowed",
        ) from error


def parse_ablation(
    flags: Mapping[str, Any], environment: Mapping[str, str], **values: Any
) -> AblationSettings:
    """The flags that a run has too, resolved as a run's with the file's ``[data]`` among them, and
    the ablation's own ``values``. Raises UsageError listing every mistake of other sources at once;
    those of ``[data]`` are told with all others of the file, by whoever reads it."""
    declared = _data_in(in_home(Path(values["config"])))
    try:
        data = resolve(flags, environment, declared=declared).settings
    except UsageError:
        data = resolve(flags, environment).settings
    return AblationSettings(data=data, **values)


def _data_in(config: Path) -> dict[str, Any]:
    """Nothing of a file that cannot be read: whoever reads all of it says why."""
    try:
        data = tomllib.loads(config.read_text(encoding="utf-8-sig")).get("data")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
    return data if isinstance(data, dict) else {}


def _with_folders(
    layers: Sequence[tuple[str, Mapping[str, Any]]],
) -> list[tuple[str, dict[str, Any]]]:
    """The layers ``with_folder``; the folder of one counts unless a later one names a dataset."""
    found: list[tuple[str, dict[str, Any]]] = []
    is_renamed = False
    for origin, layer in reversed(layers):
        values = with_folder(layer)
        if is_renamed and values.get("dataset") != layer.get("dataset"):
            del values["data_root"]
        is_renamed = is_renamed or "dataset" in layer
        found.insert(0, (origin, values))
    return found


def _section(dataset: str) -> str:
    return f"{SETTINGS_FILE} [{SECTIONS}.{dataset}]"


def _faults_of_sections(sections: Any) -> list[str]:
    if not isinstance(sections, dict):
        return [f"{SECTIONS} (from {SETTINGS_FILE}): holds sections, such as [{SECTIONS}.fiq]"]
    return [
        fault
        for name, values in sections.items()
        for fault in _faults_of_section(_section(name), name, values)
    ]


def _faults_of_section(title: str, name: str, values: Any) -> list[str]:
    if name not in DATASETS:
        return [f"{title}: no dataset is called so; known are {', '.join(DATASETS)}"]
    if not isinstance(values, dict):
        return [f"{title}: is no section, but {values!r}"]
    misplaced = [
        f"{name} (from {title}): holds for all datasets; it stands above the sections"
        for name in GENERAL
        if name in values
    ]
    own = {name: value for name, value in values.items() if name not in GENERAL}
    return misplaced + _faults(own, dict.fromkeys(own, title))


def _faults(values: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """What is wrong with each value, and where it comes from."""
    try:
        Settings(**values)
    except ValidationError as error:
        told: dict[str, list[str]] = {}
        for one in error.errors():
            message = NO_SETTING if one["type"] == "extra_forbidden" else one["msg"]
            told.setdefault(str(one["loc"][0]), []).append(message)
        return [
            f"{name} (from {origins[name]}): {', or '.join(messages)}"  # one for each of its types
            for name, messages in told.items()
        ]
    return []


def with_folder(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of settings, in which a dataset that is a path becomes own data with this data root.

    A path is what holds a separator or begins with a dot or ``~``; whether there is such a folder
    is not asked. Raises UsageError when another data root is given beside it.
    """
    dataset = values.get("dataset")
    if not isinstance(dataset, str) or not (os.sep in dataset or dataset.startswith((".", "~"))):
        return dict(values)
    root = values.get("data_root")
    if root is not None and Path(root) != Path(dataset):
        raise UsageError(
            "a folder of your own is its data root, and another one is given",
            item=f"{dataset} and {root}",
            remedy=f"leave out the data root, or pass --dataset own --data-root {root}",
        )
    return dict(values) | {"dataset": "own", "data_root": dataset}


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"{SETTINGS_FILE} cannot be read", item=str(path), cause=str(error.strerror)
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{SETTINGS_FILE} is not TOML", item=str(path), cause=str(error)
        ) from error


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value
    }
    several = {
        name for name, one in Settings.model_fields.items() if isinstance(one.default, tuple)
    }
    return {
        name: tuple(part.strip() for part in value.split(",")) if name in several else value
        for name, value in given.items()
    }
