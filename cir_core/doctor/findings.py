"""What an examination finds: each fact with what was expected, its weight, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cir_core.errors import CirError, PreflightError, ProblemsFound

State = Literal["ok", "note", "problem", "blocked"]
"""As it should be; worth knowing; wrong, and results would be short or differ; nothing can run."""

EXAMPLES = 5
"""A table for people shows so many; the counts are whole."""


@dataclass(frozen=True)
class Finding:
    """``percent`` is of ``expected``. ``examples`` are the first few of what was counted."""

    part: str
    check: str
    state: State
    found: int | str
    expected: int | str | None = None
    percent: float | None = None
    examples: tuple[str, ...] = ()
    remedy: str = ""


def exit_code_of(findings: Iterable[Finding]) -> int:
    """0 when nothing is wrong, 3 for problems, 4 when something needed is missing."""
    states = {finding.state for finding in findings}
    if "blocked" in states:
        return PreflightError.exit_code
    return ProblemsFound.exit_code if "problem" in states else 0


def counted(part: str, check: str, state: State, items: Iterable[str], remedy: str = "") -> Finding:
    """So many items, of which there should be none."""
    listed = list(items)
    examples = tuple(listed[:EXAMPLES])
    return Finding(part, check, state, len(listed), 0, examples=examples, remedy=remedy)


def share(part: str, check: str, found: int, expected: int) -> Finding:
    """So many of those that should be; fewer is a problem. Of nothing, nothing is all."""
    if found == expected:
        return Finding(part, check, "ok", found, expected, 100.0)
    return Finding(part, check, "problem", found, expected, 100 * found / expected)


def blocked(part: str, check: str, error: CirError) -> Finding:
    """An expected failure as a finding; an error may tell of several items, a line each."""
    told = (text for text in (error.item, error.cause) if text)
    examples = tuple(line for text in told for line in text.split("\n"))
    return Finding(part, check, "blocked", error.what, examples=examples, remedy=error.remedy)
