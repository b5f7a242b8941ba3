"""Recipes as users name them: a preset, or a TOML file that changes some of a preset's values."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cir_core.errors import UsageError
from cir_core.training.presets import PRESETS, Preset
from flows.settings import in_home


@dataclass(frozen=True)
class NamedRecipe:
    """``origins`` says of each value that the file changes, by its dotted name, which file."""

    preset: Preset
    origin: str
    changed: frozenset[str]


def find_recipe(name: str) -> NamedRecipe:
    """A preset by name, or by the path of a TOML file: ``preset = "fiq"`` and then, under
    ``[stage1]``, ``[stage2]`` or ``[pretrain]``, the values to change.

    Raises UsageError listing every mistake at once.
    """
    if name in PRESETS:
        return NamedRecipe(PRESETS[name], f"preset {name}", frozenset())
    base, changes = recipe_changes(name)
    preset = changed_preset(base, changes, item=str(in_home(Path(name))))
    return NamedRecipe(preset, f"preset {base}", frozenset(_names(changes)))


def recipe_changes(name: str) -> tuple[str, dict[str, Any]]:
    """A recipe by the preset that it changes, and the changes. Raises as ``find_recipe``, but for
    values that the preset does not take."""
    if name in PRESETS:
        return name, {}
    path = in_home(Path(name))
    if path.suffix != ".toml":
        raise UsageError(
            f"no recipe is called {name!r}",
            remedy=f"choose one of {', '.join(PRESETS)}, or pass a .toml file",
        )
    changes = _read(path)
    base = changes.pop("preset", None)
    if not isinstance(base, str) or base not in PRESETS:
        raise UsageError(
            "a recipe does not say which preset it changes",
            item=str(path),
            cause=f"preset is {base!r}",
            remedy=f"write preset = one of {', '.join(PRESETS)}",
        )
    return base, changes


def changed_preset(base: str, changes: Mapping[str, Any], *, item: str) -> Preset:
    """The preset of this name with other values. Raises UsageError, about ``item``, listing every
    value that is not usable."""
    try:
        return Preset.model_validate(merged(PRESETS[base].model_dump(), changes))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UsageError(
            "some values of a recipe are not usable",
            item=item,
            cause="; ".join(faults),
            remedy=f"`cir-pipeline config show --config {base}` lists all values",
        ) from error


def recipe_text(base: str, changes: Mapping[str, Any]) -> str:
    """The TOML that ``recipe_changes`` reads; values are texts, numbers, truths, lists of these,
    or tables."""
    return "\n".join([f"preset = {json.dumps(base)}", *_toml(changes), ""])


def recipe_rows(recipe: NamedRecipe) -> list[tuple[str, Any, str]]:
    """Every value by its dotted name, and where it comes from."""
    return [
        (name, value, "the file" if name in recipe.changed else recipe.origin)
        for name, value in _flat(recipe.preset.model_dump(mode="json")).items()
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError("a recipe cannot be read", item=str(path), cause=str(error)) from error


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes over the base, table by table."""
    found = dict(base)
    for name, value in changes.items():
        inner = base.get(name)
        both = isinstance(value, dict) and isinstance(inner, dict)
        found[name] = merged(inner, value) if both and inner is not None else value
    return found


def _toml(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """JSON writes texts, numbers, truths and lists of them as TOML does."""
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in values.items() if name not in tables
    ]
    for name, table in tables.items():
        lines += [f"[{prefix}{name}]", *_toml(table, f"{prefix}{name}.")]
    return lines


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _names(changes: dict[str, Any]) -> list[str]:
    return list(_flat(changes))
