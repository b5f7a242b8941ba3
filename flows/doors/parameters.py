"""A flow's parameters, from the settings that it takes."""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import TypeVar

from pydantic import BaseModel

from flows.about import Setting, settings_of
from flows.settings import Settings

Result = TypeVar("Result")


def parameters_of(
    settings: type[BaseModel],
    *,
    without: frozenset[str] = frozenset(),
    beside: tuple[str, ...] = (),
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Give a function of any keywords the signature of these settings, and of those of a run that
    are named ``beside`` them: Prefect makes its form of it, with what each setting's ``About``
    tells."""
    of_run = {one.name: one for one in settings_of(Settings)}
    declared = [one for one in settings_of(settings) if one.name not in without]
    declared += [of_run[name] for name in beside]

    def with_parameters(work: Callable[..., Result]) -> Callable[..., Result]:
        work.__signature__ = Signature([_parameter(one) for one in declared])  # type: ignore[attr-defined]  # read by inspect
        return work

    return with_parameters


def _parameter(setting: Setting) -> Parameter:
    default = Parameter.empty if setting.is_required else setting.default
    return Parameter(setting.name, Parameter.KEYWORD_ONLY, annotation=setting.type, default=default)
