"""Every command explains itself in what a terminal of 80 columns shows, and answers programs."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from flows.doors.cli.app import FIRST_LINE, GROUPS, PANELS, app


def found(command: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """A command and all below it, by the words that call them."""
    yield " ".join(names), command
    for name, below in getattr(command, "commands", {}).items():
        yield from found(below, *names, name)


EVERY = dict(found(typer.main.get_command(app)))
CALLED = {words: one for words, one in EVERY.items() if not hasattr(one, "commands")}


@pytest.mark.parametrize("words", [words for words in EVERY if words])
def test_the_first_line_of_a_help_fits_in_the_list_of_commands(words: str) -> None:
    first = EVERY[words].help.split("\n\n")[0]
    assert first.endswith(".")
    assert len(first) <= FIRST_LINE


@pytest.mark.parametrize("words", CALLED)
def test_a_command_tells_of_each_of_its_options(words: str) -> None:
    assert [one.name for one in CALLED[words].params if not one.help] == []


@pytest.mark.parametrize("words", CALLED)
def test_a_command_prints_json(words: str) -> None:
    (option,) = [one for one in CALLED[words].params if "--json" in one.opts]
    assert "JSON" in option.help


def test_every_command_has_its_place_in_the_help() -> None:
    longest = len("check-submission")  # beside which ``FIRST_LINE`` is what is left
    placed = [*GROUPS, *(name for commands in PANELS.values() for name in commands)]
    assert sorted(placed) == sorted({words.split()[0] for words in EVERY if words})
    assert max(map(len, placed)) == longest
    assert "Commands" not in {one.rich_help_panel for one in EVERY.values()}
