"""Values that a shell completes where an option's type does not list them.

What cannot be found out is not offered: that a setting or a store is wrong, the command itself
tells. For paths nothing is offered, and the shell completes files.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from cir_core.errors import CirError


def _or_nothing(
    complete: Callable[[typer.Context], list[str]],
) -> Callable[[typer.Context], list[str]]:
    @wraps(complete)
    def completed(ctx: typer.Context) -> list[str]:
        try:
            return complete(ctx)
        except CirError:
            return []

    return completed


def dataset_names() -> list[str]:
    """Of all datasets."""
    from cir_core.datasets.registry import DATASETS

    return list(DATASETS)


def recipe_names() -> list[str]:
    """Of the presets."""
    from cir_core.training.presets import PRESETS

    return list(PRESETS)


@_or_nothing
def protocol_names(ctx: typer.Context) -> list[str]:
    """Of the dataset that the settings name, the line's included."""
    from cir_core.datasets.registry import find_dataset

    return [one.name for one in find_dataset(_setting(ctx, "dataset")).protocols]


@_or_nothing
def category_names(ctx: typer.Context) -> list[str]:
    """Of the dataset that the settings name; none where only the data know them."""
    from cir_core.datasets.registry import find_dataset

    return list(find_dataset(_setting(ctx, "dataset")).adapter.categories)


@_or_nothing
def run_ids(ctx: typer.Context) -> list[str]:
    """Of the store's finished runs."""
    from storage.artifacts import finished
    from storage.catalog import run_id_of

    return [run_id_of(run.fingerprint) for run in finished(_setting(ctx, "store"), "evaluate")]


def _setting(ctx: typer.Context, name: str) -> Any:
    from flows.settings import resolve

    return getattr(resolve({name: ctx.params.get(name)}, os.environ).settings, name)
