"""``config show``: every setting, its value and its origin."""

import os
from typing import Annotated

import typer

from flows.doors.cli.completion import recipe_names
from flows.doors.cli.options import Dataset, Json
from flows.engines.choice import configured_api
from flows.views.streams import put, put_json


def config_show(
    recipe: Annotated[
        str | None,
        typer.Option(
            "--config",
            autocompletion=recipe_names,
            help="A recipe (demo, small, fiq, cirr, a .toml) instead.",
        ),
    ] = None,
    dataset: Dataset = None,
    as_json: Json = False,
) -> None:
    """All settings, their values, and where each comes from; of a run, perhaps of one dataset's, or
    of a training recipe."""
    from cir_core.errors import UsageError
    from flows.recipes import find_recipe, recipe_rows
    from flows.settings import resolve

    if recipe is not None and dataset is not None:
        raise UsageError(
            "--config shows a recipe, --dataset the settings of a run",
            remedy="leave one of them out",
        )
    if recipe is not None:
        rows = recipe_rows(find_recipe(recipe))
    else:
        resolved = resolve({"dataset": dataset}, os.environ)
        values = resolved.settings.model_dump(mode="json")
        rows = [(name, value, resolved.origins[name]) for name, value in values.items()]
        api = configured_api()
        rows.append(("prefect_api", *((api.shown, api.origin) if api else (None, "default"))))
    if as_json:
        put_json({name: {"value": value, "from": origin} for name, value, origin in rows})
        return
    width = max(len(name) for name, _, _ in rows)
    for name, value, origin in rows:
        told = "not set" if value in (None, []) else value
        put(f"{name:{width}} {told!s:14} ({origin})")
