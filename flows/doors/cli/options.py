"""A command's options, made of the settings that it takes."""

import inspect
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from inspect import Parameter
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import typer
from annotated_types import Gt
from pydantic import BaseModel, ByteSize

from flows.about import Setting, settings_of
from flows.doors.cli.completion import completion_of, run_ids
from flows.doors.cli.texts import text
from flows.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

RUN_NAME: dict[str, Any] = {"autocompletion": run_ids, "parser": text}
"""What a finished run of the store is called, told by a command of its own."""

_RUN = {"help": "A run's name, or the first digits of its id.", **RUN_NAME}

OneRun = Annotated[str | None, typer.Option("--run", show_default="the only run", **_RUN)]

RunHere = Annotated[str | None, typer.Argument(show_default="the only run", **_RUN)]
"""The same without a word before it."""

NamedRun = Annotated[str, typer.Argument(**_RUN)]
"""A run that must be said."""

Command = TypeVar("Command", bound=Callable[..., None])


def takes(*options: list[Parameter]) -> Callable[[Command], Command]:
    """Give a command these options in place of its keywords that may have any name."""

    def with_options(command: Command) -> Command:
        own = inspect.signature(command).parameters.values()
        parameters = [one for one in own if one.kind is not Parameter.VAR_KEYWORD]
        parameters = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in parameters]
        parameters += [one for group in options for one in group]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return with_options


def flags_of(*names: str, settings: type[BaseModel] = Settings) -> list[Parameter]:
    """Options for those settings, or for all, that other sources tell too: one that is not given
    is None, and ``flows.origins.resolve`` checks them together."""
    known = {one.name: one for one in settings_of(settings)}
    return [_flag(known[name]) for name in names or known]


def options_of(
    settings: type[BaseModel], *, without: AbstractSet[str] = frozenset()
) -> list[Parameter]:
    """Options for settings that the terminal alone tells, with their own defaults."""
    told = [one for one in settings_of(settings) if one.name not in without]
    return [_option(one) for one in told if not one.is_record]


def help_of(settings: type[BaseModel], name: str) -> str:
    """For a command that declares an option itself."""
    return next(one.about.help for one in settings_of(settings) if one.name == name)


def _flag(setting: Setting) -> Parameter:
    words = setting.default_words or True
    return _parameter(setting, typer.Option(*setting.flags, show_default=words), None)


def _option(setting: Setting) -> Parameter:
    default = Parameter.empty if setting.is_required else setting.default
    if setting.about.positional:
        return _parameter(setting, typer.Argument(), default)
    words = setting.about.default or True
    least = next((int(one) + 1 for one in _above(setting.type)), None)
    told = typer.Option(*setting.flags, show_default=words, min=least)
    return _parameter(setting, told, default)


def _parameter(setting: Setting, told: Any, default: Any) -> Parameter:
    """``told``: what typer is told of an option or an argument, completed by what it is about."""
    about, typed = setting.about, _typed(setting.type)
    told.help = about.help
    told.rich_help_panel = about.panel
    told.autocompletion = completion_of(about.values) if about.values else None
    told.parser = text if typed in (str, list[str]) and not about.may_be_path else None
    if default is None:
        typed |= None
    return Parameter(
        setting.name, Parameter.KEYWORD_ONLY, annotation=Annotated[typed, told], default=default
    )


def _typed(annotation: Any) -> Any:
    """The type that typer reads from the terminal, for a setting's, whose checks come later."""
    if get_origin(annotation) is Annotated:
        return _typed(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        types = [_typed(one) for one in get_args(annotation) if one is not type(None)]
        return types[0] if len(types) == 1 else str  # a number or a word: told apart later
    if get_origin(annotation) is tuple:
        return list[_typed(get_args(annotation)[0])]  # type: ignore[misc]  # made at run time
    return str if annotation is ByteSize else annotation


def _above(annotation: Any) -> list[Any]:
    """Bounds that a value lies above, of however nested a type."""
    inner = [bound for one in get_args(annotation) for bound in _above(one)]
    return [annotation.gt] if isinstance(annotation, Gt) else inner
