"""Settings of a run: flags over ``CIR_*`` environment over ``cir.toml`` over defaults.

The only reader of the environment and of ``cir.toml``.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from cir_core.errors import UsageError
from cir_core.retrieval.choice import IndexKind
from cir_core.types import Keeping, Precision, RunSplit

SETTINGS_FILE = "cir.toml"
PREFIX = "CIR_"


def in_home(path: Path) -> Path:
    """The path with a leading ``~`` or ``~user`` expanded; as it is where nobody has that name."""
    return Path(os.path.expanduser(path))


HomePath = Annotated[Path, AfterValidator(in_home)]
"""A path in which ``~`` is the home folder: a shell expands it in ``--store ~/x``, and neither in
``--store=~/x`` nor in a file or the environment."""


class Settings(BaseModel):
    """What one run is asked to do, as typed; ``resolve_inputs`` of the pipeline completes it.

    ``dataset``, ``split``, ``categories``, ``protocol``, ``k``, ``index``, ``nlist``, ``nprobe``,
    ``precision``, the two models and, of own data, ``name``, ``images``, ``queries`` and
    ``gallery`` change results; the others do not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = "demo"
    data_root: HomePath | None = None
    name: str | None = None
    images: str | None = None
    queries: str | None = None
    gallery: str | None = None
    split: RunSplit = "val"
    categories: tuple[str, ...] = ()
    stage1: HomePath | None = None
    stage2: HomePath | None = None
    protocol: str | None = None
    k: PositiveInt | None = None
    index: IndexKind = "exact"
    nlist: PositiveInt | None = None
    nprobe: PositiveInt | None = None
    store: HomePath = Path("cir-store")
    allow_missing: NonNegativeInt = 0
    device: str = "auto"
    batch: PositiveInt = 32
    workers: NonNegativeInt | None = None
    tokens: Keeping = "auto"
    memory: Annotated[ByteSize, Field(gt=0)] | None = None
    precision: Precision = "fp32"
    engine: Literal["auto", "in-process", "prefect"] = "auto"


@dataclass(frozen=True)
class Resolved:
    """Settings and where each value came from."""

    settings: Settings
    origins: dict[str, str]


def resolve(
    flags: Mapping[str, Any], environment: Mapping[str, str], folder: Path = Path()
) -> Resolved:
    """Merge the four sources. A flag that is None or empty was not given.

    Raises UsageError listing every mistake at once, with the source of each value.
    """
    layers = [
        (SETTINGS_FILE, _read_toml(folder / SETTINGS_FILE)),
        ("environment", _read_environment(environment)),
        ("flag", {name: value for name, value in flags.items() if value not in (None, (), [])}),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, given in layers:
        layer = with_folder(given)
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    try:
        return Resolved(Settings(**values), origins)
    except ValidationError as error:
        faults = [
            f"{fault['loc'][0]} (from {origins[str(fault['loc'][0])]}): {fault['msg']}"
            for fault in error.errors()
        ]
        raise UsageError(
            "some settings are not usable",
            cause="; ".join(faults),
            remedy="correct them there; `cir-pipeline run --help` tells what is allowed",
        ) from error


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


def shipped_model(stage: Literal["stage1", "stage2"]) -> Path:
    """The demo pair that comes with the package."""
    return Path(str(resources.files("cir_core.models") / "pretrained" / "demo" / stage))


def demo_root(store: Path) -> Path:
    """Where the demo dataset is drawn."""
    return store / "data" / "demo"


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{SETTINGS_FILE} is not TOML", item=str(path), cause=str(error)
        ) from error


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in environment.items():
        if name.startswith(PREFIX) and value:
            key = name.removeprefix(PREFIX).lower()
            values[key] = tuple(value.split(",")) if key == "categories" else value
    return values
