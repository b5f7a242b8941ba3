"""What analyses say, on the terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.views.sparklines import sparkline, thinned
from flows.views.streams import put
from flows.views.tables import Column, Console, print_line, print_lines, print_table
from flows.views.values import cell
from tasks.results.analyses.analysis import WORDS, Analysis, Figure, Numbers
from tasks.results.report.forms import FORMS

if TYPE_CHECKING:
    from flows.run import Run  # imports torch: seconds, where a finished run is asked

_FORMS = {**FORMS, **dict.fromkeys((*WORDS, "number"), cell)}
"""As the report has them, but for what tables of SQL have, too."""

LEAST = 3
"""Points: two are told by their numbers."""

SMALL = "*"
"""Marks a row that rests on few queries."""


def print_analysis(analysis: Analysis, console: Console) -> None:
    """The question, its answer and what to do, and the tables; or what lacks for an answer. Of the
    figures, which are the report's, lines and histograms in small."""
    print_line(console, analysis.question, "bold")
    for text in (analysis.answer, analysis.advice, analysis.missing):
        if text:
            print_lines(console, text)
    for figure in analysis.figures:
        for line in figure_lines(figure, console.encoding):
            print_line(console, line)
    for numbers in analysis.numbers:
        if numbers.rows:
            _print_numbers(numbers, console)


def figure_lines(figure: Figure, encoding: str) -> list[str]:
    """A line or a histogram as bars, a row for each series with its first and last height. None of
    other kinds, of few points, or where a series lacks points that others have: bars below each
    other would not be of the same place."""
    series: dict[str, dict[float, float]] = {}
    for row in figure.rows if figure.kind in ("line", "histogram") else ():
        if row["y"] is None:
            continue
        series.setdefault(str(row.get("series") or figure.y), {})[row["x"]] = row["y"]
    places = sorted({place for points in series.values() for place in points})
    if len(places) < LEAST or any(len(points) < len(places) for points in series.values()):
        return []
    drawn = {name: [points[place] for place in places] for name, points in series.items()}
    least, width = 0 if figure.kind == "histogram" else None, max(map(len, drawn))
    first, last = places[0], max(row.get("x2", row["x"]) for row in figure.rows)
    told = _FORMS["percent" if figure.is_percent else "number"]
    lines = [f"{figure.y} by {figure.x}, {cell(first)} to {cell(last)}"]
    for name, heights in drawn.items():
        bars = sparkline(thinned(heights), least=least, encoding=encoding)
        lines.append(f"  {name:{width}} {told(heights[0])} {bars} {told(heights[-1])}")
    return lines


def print_analyses(run: "Run", analyses: Sequence[Analysis], console: Console) -> None:
    """All of a run's, and where its files are."""
    for analysis in analyses:
        print_analysis(analysis, console)
        print_line(console, "")
    put(f"catalog: {run.catalog}")
    put(f"report:  {run.report}")


def analyses_summary(run: "Run", analyses: Sequence[Analysis]) -> dict[str, Any]:
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
    columns = [Column(one.heading, right=one.form not in WORDS) for one in numbers.columns]
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
