"""``config show``: every setting, its value, its origin, and whether it changes results."""

import os
from typing import Annotated, Any

import typer

from flows.about import settings_of
from flows.doors.cli.completion import completion_of
from flows.doors.cli.options import Json, flags_of, takes
from flows.engines.choice import configured_api
from flows.settings import Settings
from flows.suggestions import recipe_names
from flows.views.streams import put, put_json


@takes(flags_of("dataset"))
def config_show(
    recipe: Annotated[
        str | None,
        typer.Option(
            "--config",
            autocompletion=completion_of(recipe_names),
            help="A recipe (demo, small, fiq, cirr, a .toml) instead.",
        ),
    ] = None,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """All settings, their values, and where each comes from.

    And which change results: of a run, perhaps of one dataset's, or of a training recipe.
    """
    from cir_core.errors import UsageError
    from flows.recipes import find_recipe, recipe_rows

    if recipe is None:
        rows = _rows_of_a_run(flags)
    elif flags.get("dataset") is None:
        rows = [(*row, None) for row in recipe_rows(find_recipe(recipe))]
    else:
        raise UsageError(
            "--config shows a recipe, --dataset the settings of a run",
            remedy="leave one of them out",
        )
    if as_json:
        put_json({name: _told(*row) for name, *row in rows})
        return
    width = max(len(name) for name, *_ in rows)
    for name, value, origin, changes_results in rows:
        shown = "not set" if value in (None, []) else value
        line = f"{name:{width}} {shown!s:14} ({origin})"
        put(f"{line:{width + 27}} changes results" if changes_results else line)


def _told(value: Any, origin: str, changes_results: bool | None) -> dict[str, Any]:
    told = {"value": value, "from": origin}
    return told if changes_results is None else told | {"changes_results": changes_results}


def _rows_of_a_run(flags: dict[str, Any]) -> list[tuple[str, Any, str, bool | None]]:
    """Name, value, origin, and whether another value may give other results."""
    from flows.origins import resolve

    resolved = resolve(flags, os.environ)
    values = resolved.settings.model_dump(mode="json")
    rows = [
        (one.name, values[one.name], resolved.origins[one.name], one.about.changes_results)
        for one in settings_of(Settings)
    ]
    api = configured_api()
    told = (api.shown, api.origin) if api else (None, "default")
    return [*rows, ("prefect_api", *told, None)]
