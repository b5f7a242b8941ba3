"""A run as a command line: what makes it again, elsewhere too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.about import Setting, settings_of
from flows.settings import Settings

BESIDE = ("data_root", "allow_missing", "until", "no_guarantee")
"""Settings that change no result, but without which there may be none."""


def command_of(settings: Settings) -> tuple[str, ...]:
    """The words of `cir-pipeline run` with every setting that is not at its default and changes
    results, and where the data are. Paths are as they were given, the home folder a ``~``; on
    another machine, the hashes in a run's record tell which models and galleries are meant."""
    words = ["cir-pipeline", "run"]
    for one in settings_of(Settings):
        value = getattr(settings, one.name)
        if value != one.default and (one.about.changes_results or one.name in BESIDE):
            words += _words(one, value)
    return tuple(words)


def _words(setting: Setting, value: Any) -> Iterator[str]:
    flag = setting.flags[-1]
    if value is True:
        yield flag
        return
    for each in value if isinstance(value, tuple) else (value,):
        text = _told(each)
        yield from (f"{flag}={text}",) if text.startswith("-") else (flag, text)


def _told(value: Any) -> str:
    home = Path.home()
    if isinstance(value, Path) and value.is_relative_to(home):
        return f"~/{value.relative_to(home)}"
    return str(value)
