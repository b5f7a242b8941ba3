"""A run beside what was expected of it."""

from collections import Counter
from pathlib import Path

from cir_core.errors import ProblemsFound
from flows.views.streams import put
from flows.views.tables import Cell, Column, Console, print_table
from tasks.results.record.expected import Check, Checked

STYLES = {"ok": "green", "within tolerance": "yellow", "differs": "bold red", "missing": "bold red"}

AGREES = ("ok", "within tolerance")


def print_check(check: Check, console: Console) -> None:
    """All facts and numbers that are not quite as expected, and how many are."""
    facts = [[one.name, str(one.expected), _text(one.found), _state(one)] for one in check.facts]
    facts = [row for row, one in zip(facts, check.facts, strict=True) if one.state != "ok"]
    if facts:
        print_table(console, [*map(Column, ("", "expected", "run", "state"))], facts)
    numbers = [_number(one) for one in check.numbers if one.state != "ok"]
    if numbers:
        heads = [Column(name, right=True) for name in ("expected", "run", "difference", "allowed")]
        print_table(console, [Column("in %"), *heads, Column("state")], numbers)
    put(f"run {check.run_id}: {told(check)}")


def told(check: Check) -> str:
    """How many of each state."""
    return f"{_counted(check.facts)} of {len(check.facts)} facts; " + (
        f"{_counted(check.numbers)} of {len(check.numbers)} numbers"
    )


def require_reproduced(check: Check, file: Path) -> None:
    """Raises ProblemsFound where a fact or a number is not as expected."""
    if check.ok:
        return
    wrong = [one for one in (*check.facts, *check.numbers) if one.state not in AGREES]
    is_other = any(one.state not in AGREES for one in check.facts)
    raise ProblemsFound(
        f"run {check.run_id} is not what {file} expects",
        item=", ".join(one.name for one in wrong),
        cause="it is of other models, galleries or settings"
        if is_other
        else "the same models and galleries gave other numbers, by more than rounding explains",
        remedy="what differs is above; docs/reproduction.md tells how tolerances are chosen",
    )


def _counted(checked: tuple[Checked, ...]) -> str:
    counts = Counter[str](one.state for one in checked)
    return ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state]) or "none"


def _state(one: Checked) -> Cell:
    return one.state, STYLES[one.state]


def _number(one: Checked) -> list[Cell]:
    if not isinstance(one.expected, float) or not isinstance(one.found, float):
        return [one.name, _percent(one.expected), "", "", "", _state(one)]
    difference = f"{100 * (one.found - one.expected):+.4f}"
    allowed = _percent(one.tolerance)
    numbers = [_percent(one.expected), _percent(one.found), difference, allowed]
    return [one.name, *numbers, _state(one)]


def _percent(value: object) -> str:
    return f"{100 * value:.4f}" if isinstance(value, float) else _text(value)


def _text(value: object) -> str:
    return "" if value is None else str(value)
