"""How the analyses tell numbers in a sentence."""

from collections.abc import Mapping
from typing import Any

from cir_core.metrics.significance import Interval

NOT_ANALYSED = (
    "this run's queries were asked nothing beside it: `cir-pipeline analyse`, with the options of "
    "the run, does that"
)
"""What lacks for an analysis that needs the models."""


def percent(fraction: float) -> str:
    """Of 0.1234: 12.3 %."""
    return f"{100 * fraction:.1f} %"


def points(interval: Interval) -> str:
    """A difference of fractions, in percentage points, and where it lies."""
    value, low, high = (100 * one for one in interval)
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def counted(number: int, one: str, many: str = "") -> str:
    """Of 1 and 2 queries: "1 query" and "2 queries"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def candidates_of(run: Mapping[str, Any]) -> str:
    """How many a query has: "50 candidates", or, where K is adaptive, "up to 31 candidates"."""
    most = "up to " if run["coverage_asked"] is not None else ""
    return f"{most}{counted(run['k'], 'candidate')}"


def sentences(*told: str) -> str:
    """Those that say something, as a paragraph."""
    return " ".join(one for one in told if one)


def of_run(run: Mapping[str, Any], table: str = "") -> str:
    """The condition of SQL on one run's rows."""
    return f"{table}run_id = '{run['run_id']}'"
