"""Protocols are told in paragraphs that a terminal of any width shows between words."""

import io

import pytest

from cir_core.protocols import PROTOCOLS
from flows.views.listings import print_protocols
from flows.views.tables import Console


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(file: io.StringIO, width: int) -> list[str]:
    console = Console(file=file, width=width, color_system=None)
    print_protocols(PROTOCOLS.values(), console)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_terminal_is_never_overrun_and_no_word_is_broken(width: int) -> None:
    lines, whole = told(Screen(), width), told(io.StringIO(), width)
    assert max(map(len, lines)) <= width
    assert set(PROTOCOLS) <= set(lines)
    assert " ".join(lines).split() == " ".join(whole).split()


def test_a_file_has_each_paragraph_on_one_line() -> None:
    lines = told(io.StringIO(), 20)
    assert len(lines) == 5 * len(PROTOCOLS)
    assert f"  {PROTOCOLS['cirr-removed-subset-scored'].description}" in lines
