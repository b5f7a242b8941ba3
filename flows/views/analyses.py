"""What analyses say, on the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from flows.run import Run
from flows.views.streams import put
from flows.views.tables import Column, Console, print_line, print_table
from flows.views.values import cell
from tasks.results.analyses.analysis import Analysis, Numbers

_FORMS: dict[str, Callable[[Any], str]] = {
    "text": cell,
    "percent": lambda value: f"{100 * value:.2f}",
    "gain": lambda value: f"{100 * value:+.2f}",
    "interval": lambda value: f"[{100 * value[0]:+.2f}, {100 * value[1]:+.2f}]",
    "count": lambda value: f"{value:,}",
    "number": cell,
}

SMALL = "*"
"""Marks a row that rests on few queries."""


def print_analysis(analysis: Analysis, console: Console) -> None:
    """The question, its answer and what to do, and the tables; or what lacks for an answer. Figures
    are the report's."""
    print_line(console, analysis.question, "bold")
    for text in (analysis.answer, analysis.advice, analysis.missing):
        if text:
            print_line(console, text)
    for numbers in analysis.numbers:
        if numbers.rows:
            _print_numbers(numbers, console)


def print_analyses(run: Run, analyses: Sequence[Analysis], console: Console) -> None:
    """All of a run's, and where its files are."""
    for analysis in analyses:
        print_analysis(analysis, console)
        print_line(console, "")
    put(f"catalog: {run.catalog}")
    put(f"report:  {run.report}")


def analyses_summary(run: Run, analyses: Sequence[Analysis]) -> dict[str, Any]:
    """For programs: each with its figures and numbers, and the SQL that gives them anew."""
    return {
        "run_id": run.run_id,
        "catalog": str(run.catalog),
        "report": str(run.report),
        "made": run.made,
        "analyses": [asdict(analysis) for analysis in analyses],
    }


def _print_numbers(numbers: Numbers, console: Console) -> None:
    """Fractions are told in percent."""
    columns = [Column(one.heading, right=one.form != "text") for one in numbers.columns]
    rows = [
        [_told(row.get(one.field), one.form) for one in numbers.columns] for row in numbers.rows
    ]
    for row, told in zip(numbers.rows, rows, strict=True):
        told[0] += SMALL * bool(row.get("is_small"))
    print_table(console, columns, rows, title=numbers.title)
    if any(row.get("is_small") for row in numbers.rows):
        print_line(console, f"{SMALL} few queries: read it with care")


def _told(value: Any, form: str) -> str:
    return "" if value is None else _FORMS[form](value)
