"""Commands that are imported when they are asked for: to list them all takes none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


@dataclass(frozen=True)
class Command:
    """``where``: module and function, in this package. ``told``: the first paragraph of its
    docstring, which a list of commands says of it."""

    where: str
    told: str

    def load(self) -> Callable[..., None]:
        """The function; what its module needs is imported now."""
        module, function = self.where.split(":")
        loaded: Callable[..., None] = getattr(import_module(f"{__package__}.{module}"), function)
        return loaded

    def built(self, name: str) -> Any:
        """As typer calls it, with all of its options."""
        alone = typer.Typer(add_completion=False)
        function = self.load()
        alone.command(name, help=_help_of(function))(function)
        return typer.main.get_command(alone)


def put_on(app: typer.Typer, commands: Mapping[str, Command], panel: str | None = None) -> None:
    """List the commands in a panel of the app's help; ``group_of`` calls them."""
    for name, command in commands.items():
        app.command(name, help=command.told, rich_help_panel=panel)(_not_built)


def group_of(commands: Mapping[str, Command]) -> type[TyperGroup]:
    """The ``cls`` of an app on which these were put: builds the one that is called."""

    class OnDemand(TyperGroup):
        def resolve_command(
            self, ctx: Any, args: list[str]
        ) -> tuple[str | None, Any | None, list[str]]:
            name, command, rest = super().resolve_command(ctx, args)
            if name is not None and name in commands:
                command = commands[name].built(name)
            return name, command, rest

    return OnDemand


def _not_built() -> None:
    raise AssertionError("a command that is called is built before")


def _help_of(command: Callable[..., None]) -> str:
    """Its docstring with a line per paragraph, which the terminal breaks where it is narrow."""
    paragraphs = (command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(one.split()) for one in paragraphs)
