"""An ablation's file: the rows of a table, and what they have in common."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator

from cir_core.errors import UsageError
from flows.about import METHOD, MODELS, settings_of
from flows.settings import HomePath, Settings

OF_ALL = frozenset({"protocol"})
"""Of a run's method: what rows cannot differ in, since their numbers would not compare."""

OF_A_ROW = (
    frozenset(
        one.name
        for one in settings_of(Settings)
        if one.about.panel in (METHOD, MODELS) and one.about.changes_results
    )
    - OF_ALL
)
"""Settings of a run that a row may change."""


class Changes(BaseModel):
    """To a recipe: what of a preset concerns stage 2. Tables are merged value by value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = None
    merge_from: int | None = None
    variant: dict[str, Any] = {}
    stage2: dict[str, Any] = {}

    @field_validator("stage2")
    @classmethod
    def _has_no_seed(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "seed" in value:
            raise ValueError("seed: `seeds`, above all tables, says it for all rows")
        return value

    @property
    def changes(self) -> dict[str, Any]:
        """Those that are declared."""
        names = Changes.model_fields
        return {
            name: getattr(self, name) for name in names if getattr(self, name) not in (None, {})
        }


class Row(Changes):
    """``run`` are settings of its run (k, precision, ...); with ``stage2`` among them, a model
    folder, nothing is trained. ``stage`` 1 is the order before re-ranking."""

    name: Annotated[str, Field(min_length=1)]
    stage: Literal[1, 2] = 2
    run: dict[str, Any] = {}

    @property
    def trains(self) -> bool:
        return self.stage == 2 and "stage2" not in self.run  # noqa: PLR2004 - its name


class Declaration(Changes):
    """All rows start from ``recipe`` with the changes here, ``base`` and ``stage1``; each is
    trained with every one of ``seeds``. ``data`` are settings of all runs, and ``precision`` is
    the trainings'."""

    recipe: str = "demo"
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [0]
    base: HomePath | None = None
    stage1: HomePath | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    data: dict[str, Any] = {}
    row: Annotated[list[Row], Field(min_length=1)]


def read_declaration(path: Path) -> Declaration:
    """Raises UsageError: what cannot be read, or every value that is of no use in such a file."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            "an ablation's file cannot be read", item=str(path), cause=str(error)
        ) from error
    try:
        return Declaration.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise unusable(path, faults) from error


def faults_of(declared: Declaration) -> list[str]:
    """What contradicts itself, whatever models and data there are."""
    faults = [f"row {name!r}: another has that name" for name in _twice(declared)]
    if len(set(declared.seeds)) < len(declared.seeds):
        faults.append(f"seeds: one is there twice in {declared.seeds}")
    if all(row.stage == 1 for row in declared.row):
        faults.append("row: one, at least, has a stage 2; its run has the order before it, too")
    if any(row.trains for row in declared.row) and declared.base is None:
        faults.append("base: the pre-trained model that trainings start from is not given")
    faults += _faults_of_data(declared.data)
    return faults + [fault for row in declared.row for fault in _faults_of_row(row)]


def unusable(path: Path, faults: list[str]) -> UsageError:
    return UsageError(
        "this ablation cannot start",
        item=str(path),
        cause="; ".join(faults),
        remedy="docs/ablations.md tells what such a file says",
    )


def _twice(declared: Declaration) -> list[str]:
    names = [row.name for row in declared.row]
    return sorted({name for name in names if names.count(name) > 1})


def _faults_of_data(data: Mapping[str, Any]) -> list[str]:
    faults = []
    if "stage2" in data:
        faults.append("data.stage2: each row has its own; a finished one is a row's run.stage2")
    if (until := data.get("until", "report")) != "report":
        faults.append(f"data.until: rows run to their report, not to {until}")
    return faults


def _faults_of_row(row: Row) -> list[str]:
    told = f"row {row.name!r}"
    faults = [
        f"{told}: run.{name} is no setting of a run that rows may change, which are "
        f"{', '.join(sorted(OF_A_ROW))}"
        for name in row.run
        if name not in OF_A_ROW
    ]
    if row.stage == 1 and (row.run or row.changes):
        faults.append(f"{told}: stage 1 is that of the other rows; it changes nothing")
    if "stage2" in row.run and row.changes:
        faults.append(f"{told}: run.stage2 names a finished model, whose recipe changes nothing")
    if "stage1" in row.run and row.trains:
        faults.append(f"{told}: with run.stage1, run.stage2 names the model that belongs to it")
    return faults
