"""How the analyses tell numbers in a sentence."""

from collections.abc import Mapping
from typing import Any

from cir_core.conformal import NO_GUARANTEE
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


def has_no_guarantee(run: Mapping[str, Any]) -> bool:
    """Of an adaptive K that another run calibrates, which was asked otherwise."""
    return (run["k_guarantee"] or "").startswith(NO_GUARANTEE)


def adaptive_words(run: Mapping[str, Any]) -> str:
    """How K is chosen where it is adaptive, in brackets; else nothing."""
    if run["coverage_asked"] is None:
        return ""
    by = run["k_calibrated_by"]
    words = ["adaptive K", f"coverage {run['coverage_asked']:g} asked"]
    words += [] if by is None else [f"calibrated by run {by}"]
    words += [NO_GUARANTEE] if has_no_guarantee(run) else []
    return f" ({', '.join(words)})"


def sentences(*told: str) -> str:
    """Those that say something, as a paragraph."""
    return " ".join(one for one in told if one)


def of_run(run: Mapping[str, Any], table: str = "") -> str:
    """The condition of SQL on one run's rows."""
    return f"{table}run_id = '{run['run_id']}'"
