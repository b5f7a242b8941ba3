"""A flow's parameters, from the settings that it takes and the options of the command beside it."""

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature, getdoc
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Result = TypeVar("Result")


def parameters_of(
    settings: type[BaseModel],
    command: Callable[..., object],
    *,
    names: Mapping[str, str] | None = None,
    told: Mapping[str, str] | None = None,
    without: frozenset[str] = frozenset(),
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Give a function of any keywords the signature of these settings, and in its docstring an
    ``Args`` section of what the command's help tells: Prefect makes its form of both.

    ``names`` are the command's where they differ, ``told`` descriptions of what it does not have.
    """
    types = get_type_hints(settings, include_extras=True)
    fields = {name: one for name, one in settings.model_fields.items() if name not in without}
    signature = Signature(
        [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                annotation=types[name],
                default=Parameter.empty if field.is_required() else field.default,
            )
            for name, field in fields.items()
        ]
    )
    options = get_type_hints(command, include_extras=True)
    descriptions = {
        name: _help(options[(names or {}).get(name, name)], field)
        for name, field in fields.items()
        if name not in (told or {})
    } | dict(told or {})
    lines = [f"    {name}: {descriptions[name]}" for name in fields]

    def with_parameters(work: Callable[..., Result]) -> Callable[..., Result]:
        work.__signature__ = signature  # type: ignore[attr-defined]
        work.__doc__ = "\n".join([getdoc(work) or "", "", "Args:", *lines])
        return work

    return with_parameters


def _help(option: Any, field: FieldInfo) -> str:
    """What the terminal tells of an option, and a default that only words can tell."""
    (about,) = option.__metadata__
    has_words = isinstance(about.show_default, str) and not field.is_required()
    if has_words and field.default in (None, ()):
        return f"{about.help} Default: {about.show_default}."
    return str(about.help)
