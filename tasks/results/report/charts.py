"""What the page's script draws an analysis' figure from, and the table that says the same."""

from collections.abc import Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

from tasks.results.analyses.analysis import Column, Figure, Form, Numbers

FIELDS = "x", "x2", "y", "low", "high", "series", "n"
"""Of a figure's rows that are drawn."""

ROWS_SHOWN = 60
"""Of a figure's table. All of a curve, as a rule; of a scatter, whose SQL gives the rest, some."""


def chart_data(figure: Figure) -> dict[str, Any]:
    """A figure, its rows by column: what ``charts.js`` takes, as JSON has it. A number that is none
    (NaN, infinite) is null, and is not drawn."""
    return {
        "kind": figure.kind,
        "labels": {"x": figure.x, "y": figure.y},
        "columns": {
            name: [_plain(row.get(name)) for row in figure.rows] for name in fields_of(figure)
        },
        "rules": dict(figure.rules or {}),
        "percent": figure.is_percent,
        "stacked": figure.is_stacked,
        "ranks": figure.are_ranks,
    }


def figure_numbers(figure: Figure) -> Numbers:
    """The first of a figure's rows as a table."""
    number: Form = "percent" if figure.is_percent else "number"
    forms: dict[str, Form] = {
        "y": number,
        "low": number,
        "high": number,
        "series": "text",
        "n": "count",
    }
    if figure.kind == "bars":
        forms["x"] = "text"
    headings = {"x": figure.x, "x2": "to", "y": figure.y, "series": "of"}
    columns = [
        Column(name, headings.get(name, name), forms.get(name, "number"))
        for name in fields_of(figure)
    ]
    return Numbers("", columns, figure.rows[:ROWS_SHOWN], figure.sql)


def fields_of(figure: Figure) -> Sequence[str]:
    """Those that any of its rows says something in."""
    return [name for name in FIELDS if any(row.get(name) is not None for row in figure.rows)]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        value = float(value)
    return None if isinstance(value, float) and not isfinite(value) else value
