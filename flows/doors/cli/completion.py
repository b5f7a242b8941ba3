"""Values that a shell completes where an option's type does not list them.

What cannot be found out is not offered: that a setting or a store is wrong, the command itself
tells. For paths nothing is offered, and the shell completes files.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import typer

from cir_core.errors import CirError


def completion_of(
    values: Callable[[str | None], Iterable[str]],
) -> Callable[[typer.Context], list[str]]:
    """What typer asks, for the values of a setting."""

    def complete(ctx: typer.Context) -> list[str]:
        try:
            dataset = _setting(ctx, "dataset")
        except CirError:
            dataset = None
        return list(values(dataset))

    return complete


def run_ids(ctx: typer.Context) -> list[str]:
    """Of the store's finished runs: their names, and their ids."""
    from storage.runs import finished
    from storage.store import open_store

    try:
        runs = finished(open_store(_setting(ctx, "store")))
    except CirError:
        return []
    return [*filter(None, (run.label.name for run in runs)), *(run.run_id for run in runs)]


def _setting(ctx: typer.Context, name: str) -> Any:
    from flows.origins import resolve

    return getattr(resolve({name: ctx.params.get(name)}, os.environ).settings, name)
