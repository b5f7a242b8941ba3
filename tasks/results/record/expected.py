"""``expected.toml``: a run's numbers, for other runs to be held to."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from cir_core.errors import UsageError
from cir_core.metrics.recall import AVERAGE, GAIN, MICRO
from storage.views import Evaluated
from tasks.results.record.facts import Fact, Facts, facts_of

ROUNDING = 1e-9
"""Within which numbers are equal: fractions, summed in another order."""

HALF = ("mrr", "map")
"""Measures that two neighbours which change places move by half of a query's weight at most: from 1
to 1/2 where that is a reciprocal rank, h / (r (r + 1)) of h hits at rank r where it is a precision.
A recall moves by all of it."""

State = Literal["ok", "within tolerance", "differs", "missing"]

Row = Mapping[str, Any]

HEAD = """\
# What run {run_id} measured, for another run to be held to:
#
#     cir-pipeline check-run RUN --expected expected.toml
#
# Copy this file before you change it: beside a run, it is written anew with the report.
# A line that is deleted is not compared.
#
# Processors agree to rounding. Two candidates whose scores differ by less may change places, and a
# query whose target is one of them has another rank. `flips` says how many queries of each category
# may: each number may differ by flips x step, where step is the most that one such query of every
# category moves it (1 / n of a recall, the mean of these of a macro average, twice as much of a
# gain). A number's own `tolerance`, a fraction, goes before that.
format = 1
flips = 1
"""


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Number(_Declared):
    """A fraction (a gain: a difference of two), and how far from it another may be."""

    value: Annotated[float, Field(ge=-1, le=1)]
    step: Annotated[float, Field(ge=0, le=2)] = 0.0
    n: NonNegativeInt | None = None
    tolerance: Annotated[float, Field(ge=0, le=2)] | None = None


class Expected(_Declared):
    """The file."""

    format: Literal[1]
    flips: NonNegativeInt = 1
    settings: dict[str, Fact] = {}
    galleries: dict[str, str] = {}
    models: dict[str, str] = {}
    numbers: dict[str, Number] = {}


@dataclass(frozen=True)
class Checked:
    """A fact, or a number with its tolerance, beside what the run has; None: it has none."""

    name: str
    expected: Fact
    found: Fact | None
    state: State
    tolerance: float | None = None


@dataclass(frozen=True)
class Check:
    """A run beside what was expected of it."""

    run_id: str
    facts: tuple[Checked, ...]
    numbers: tuple[Checked, ...]

    @property
    def ok(self) -> bool:
        """Whether all facts are the same, and all numbers equal or within their tolerance."""
        return all(one.state in ("ok", "within tolerance") for one in (*self.facts, *self.numbers))


def name_of(row: Row) -> str:
    """Of a row of ``metrics``: which number it is."""
    k = f"@{row['k']}" if row["k"] else ""
    return f"{row['category']} {row['stage']} {row['pool']} {row['metric']}{k}"


def render(evaluated: Evaluated) -> str:
    """The file of a run. Raises as ``facts_of``."""
    facts, rows = facts_of(evaluated), evaluated.read("metrics").to_pylist()
    lines = [HEAD.format(run_id=evaluated.run_id)]
    for title, values in (
        ("settings", facts.settings),
        ("galleries", facts.galleries),
        ("models", facts.models),
    ):
        lines += [f"[{title}]", *(f"{_key(name)} = {_told(one)}" for name, one in values.items())]
        lines.append("")
    lines.append("[numbers]")
    for row, step in zip(rows, steps(rows), strict=True):
        told = f"value = {row['value']!r}, step = {step:.9f}, n = {row['n']}"
        lines.append(f"{_key(name_of(row))} = {{ {told} }}")
    return "\n".join([*lines, ""])


def steps(rows: Iterable[Row]) -> Iterator[float]:
    """How far each of a run's numbers moves at most when one query of every category has another
    rank, its target and a neighbour having changed places."""
    rows = list(rows)
    sizes = {row["category"]: row["n"] for row in rows if row["category"] not in (AVERAGE, MICRO)}
    of_query = {category: 1 / n for category, n in sizes.items()}
    of_query[AVERAGE] = sum(of_query.values()) / max(1, len(sizes))
    of_query[MICRO] = len(sizes) / max(1, sum(sizes.values()))
    for row in rows:
        weight = (2 if row["stage"] == GAIN else 1) * (0.5 if row["metric"] in HALF else 1.0)
        yield weight * of_query[row["category"]]


def read_expected(path: Path) -> Expected:
    """Raises UsageError: what cannot be read, or every value that is of no use in such a file."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            "a file of expected numbers cannot be read",
            item=str(path),
            cause=str(error),
            remedy="name the expected.toml beside a run's page, or a copy of it",
        ) from error
    try:
        expected = Expected.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise _unusable(path, faults) from error
    if not (expected.settings or expected.galleries or expected.models or expected.numbers):
        raise _unusable(path, ["it expects nothing"])
    return expected


def check(evaluated: Evaluated, expected: Expected) -> Check:
    """A run beside what is expected of it. What it has beyond that is not told. Raises as
    ``facts_of``."""
    facts, rows = facts_of(evaluated), evaluated.read("metrics").to_pylist()
    found = {name_of(row): float(row["value"]) for row in rows}
    numbers = (
        _number(name, one, found.get(name), expected.flips)
        for name, one in expected.numbers.items()
    )
    return Check(evaluated.run_id, tuple(_facts(expected, facts)), tuple(numbers))


def _facts(expected: Expected, found: Facts) -> Iterator[Checked]:
    for title, theirs, ours in (
        ("", expected.settings, found.settings),
        ("gallery ", expected.galleries, found.galleries),
        ("model ", expected.models, found.models),
    ):
        for name, value in theirs.items():
            mine = ours.get(name)
            state: State = "missing" if mine is None else "ok" if mine == value else "differs"
            yield Checked(f"{title}{name}", value, mine, state)


def _number(name: str, expected: Number, found: float | None, flips: int) -> Checked:
    tolerance = expected.tolerance
    if tolerance is None:
        tolerance = flips * expected.step
    return Checked(name, expected.value, found, _state(expected.value, found, tolerance), tolerance)


def _state(expected: float, found: float | None, tolerance: float) -> State:
    if found is None:
        return "missing"
    difference = abs(found - expected)
    if difference <= ROUNDING:
        return "ok"
    return "within tolerance" if difference <= tolerance + ROUNDING else "differs"


def _unusable(path: Path, faults: list[str]) -> UsageError:
    return UsageError(
        "a file of expected numbers is of no use",
        item=str(path),
        cause="; ".join(faults),
        remedy="docs/reproduction.md tells what such a file says",
    )


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _text(name)


def _told(value: Fact) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value)


def _text(value: str) -> str:
    """A string of JSON is one of TOML, but for DEL, which JSON takes as it is."""
    return dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
