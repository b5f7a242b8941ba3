"""A flow's parameters, from the settings that it takes."""

from collections.abc import Callable
from inspect import Parameter, Signature, getdoc
from typing import TypeVar

from pydantic import BaseModel

from flows.about import Setting, settings_of

Result = TypeVar("Result")


def parameters_of(
    settings: type[BaseModel], *, without: frozenset[str] = frozenset()
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Give a function of any keywords the signature of these settings, and in its docstring an
    ``Args`` section of what is told of them: Prefect makes its form of both."""
    declared = [one for one in settings_of(settings) if one.name not in without]

    def with_parameters(work: Callable[..., Result]) -> Callable[..., Result]:
        work.__signature__ = Signature([_parameter(one) for one in declared])  # type: ignore[attr-defined]  # read by inspect
        lines = [f"    {one.name}: {_description(one)}" for one in declared]
        work.__doc__ = "\n".join([getdoc(work) or "", "", "Args:", *lines])
        return work

    return with_parameters


def _parameter(setting: Setting) -> Parameter:
    default = Parameter.empty if setting.is_required else setting.default
    return Parameter(setting.name, Parameter.KEYWORD_ONLY, annotation=setting.type, default=default)


def _description(setting: Setting) -> str:
    """The help, and a default that only words can tell."""
    about = setting.about
    return about.help if about.default is None else f"{about.help} Default: {about.default}."
