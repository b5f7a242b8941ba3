"""How a setting is declared: once, in its class, beside its type and its default.

Everything that knows settings is made of the declarations: the terminal's options, the parameters
of Prefect's flows, ``config show`` and ``docs/settings.md``.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from flows.suggestions import dataset_names

DATA, MODELS, METHOD, MACHINE = "Data", "Models", "Method", "Machine"
"""Panels of a command's help."""

FEW = 8
"""Suggestions that a description still lists."""

_FLAG = re.compile(r"(?<![\w-])--?([a-z][a-z0-9-]*)")


@dataclass(frozen=True)
class About:
    """What there is to know of a setting beside its name, type and default.

    ``changes_results`` is false of all that only says where, how fast and how far: such a setting
    never enters the name of an artifact. ``default`` tells a default that only words can tell.
    ``panel`` groups a command's help; without one, a setting is among the command's own options.
    ``flags`` are the terminal's where these are not the name's, and a ``positional`` one has none.
    ``values`` are what a shell completes where the type does not list them, of the dataset that the
    settings name (None where they are not usable). ``may_be_path`` is for a text that may name a
    file: its bytes are kept as they are typed, and all other texts are read as UTF-8.
    """

    help: str
    panel: str | None = None
    _: KW_ONLY
    changes_results: bool
    default: str | None = None
    flags: tuple[str, ...] = ()
    positional: bool = False
    values: Callable[[str | None], Iterable[str]] | None = None
    may_be_path: bool = False

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """What a form makes of the setting: pydantic asks all that a type is annotated with."""
        suggested = self.suggested
        examples = {"examples": suggested} if suggested else {}
        return {**handler(core_schema), "description": self.described, **examples}

    @property
    def suggested(self) -> list[str]:
        """Values of any dataset; empty where the type lists them, or nobody can."""
        known = self.values or (lambda _: ())
        return [*dict.fromkeys(one for of in (None, *dataset_names(None)) for one in known(of))]

    @property
    def described(self) -> str:
        """The help for who has no terminal: flags are called as the settings are, and what the type
        does not tell is added."""
        said = [_without_dashes(self.help)]
        suggested = self.suggested
        if len(suggested) <= FEW and any(one not in self.help for one in suggested):
            said.append(f"Such as {', '.join(suggested)}.")
        if self.default is not None:
            said.append(f"Default: {_without_dashes(self.default).removesuffix('.')}.")
        return " ".join(said)


@dataclass(frozen=True)
class Setting:
    """One declaration, as the doors read it: ``type`` with all that checks a value."""

    name: str
    type: Any
    about: About
    is_required: bool
    default: Any

    @property
    def is_record(self) -> bool:
        """Whether it holds other settings, as a training's those of its data: the terminal takes
        these instead."""
        return isinstance(self.default, BaseModel)

    @property
    def flags(self) -> tuple[str, ...]:
        """The terminal's; a positional setting and a record have none."""
        if self.about.positional or self.is_record:
            return ()
        return self.about.flags or (f"--{self.name.replace('_', '-')}",)

    @property
    def default_words(self) -> str | None:
        """The default, for people; None where there is nothing to tell."""
        if self.about.default is not None or self.default in (None, ()) or self.is_record:
            return self.about.default
        return str(self.default)


@cache
def settings_of(model: type[BaseModel]) -> tuple[Setting, ...]:
    """All settings of a class, in its order. Raises TypeError for a field without ``About``."""
    types = get_type_hints(model, include_extras=True)
    return tuple(
        Setting(
            name,
            types[name],
            _about(name, field.metadata),
            field.is_required(),
            None if field.is_required() else field.get_default(call_default_factory=True),
        )
        for name, field in model.model_fields.items()
    )


def _about(name: str, metadata: Iterable[Any]) -> About:
    for one in metadata:
        if isinstance(one, About):
            return one
    raise TypeError(f"setting {name!r} is declared without About")


def _without_dashes(words: str) -> str:
    """``--text-weight`` is the setting ``text_weight``."""
    return _FLAG.sub(lambda flag: flag[1].replace("-", "_"), words)
