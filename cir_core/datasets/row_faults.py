"""What is wrong with a table of millions of rows: all of it counted, the first of it told."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from cir_core.errors import AnnotationError

FAULTS_SHOWN = 50
SHOWN = 60
"""Characters of a value in a message."""


def shown(value: Any) -> str:
    """A value on one line of a terminal, whatever is in it."""
    told = repr(value)
    return told if len(told) <= SHOWN else f"{told[:SHOWN]}... ({len(told)} characters)"


class RowFaults:
    """Faults of one file, each with its place there: the number of a line, or of a row.

    Only the first of each kind become texts: where every row of a large file is wrong, nobody reads
    them all.
    """

    def __init__(self, unit: str) -> None:
        self._unit, self.count = unit, 0
        self._first: list[tuple[int, str]] = []
        self._of_file: list[str] = []

    def add(self, places: Int[np.ndarray, " fault"], tell: Callable[[int], str]) -> None:
        """``tell`` says what is wrong with the fault of that number, 0 being the first of
        ``places``."""
        self.count += len(places)
        order = np.argsort(places, kind="stable")[:FAULTS_SHOWN].tolist()
        self._first += [(int(places[number]), tell(number)) for number in order]

    def add_of_file(self, count: int, told: list[str]) -> None:
        """What no row is to blame for: so many faults, the first of them told."""
        self.count += count
        self._of_file += told[:FAULTS_SHOWN]

    def place(self, number: int) -> str:
        """As messages name it."""
        return f"{self._unit} {number}"

    @property
    def first(self) -> list[str]:
        """Texts of the first faults, in the file's order."""
        rows = sorted(self._first, key=lambda one: one[0])
        told = [f"{self.place(number)}: {fault}" for number, fault in rows]
        return [*told, *self._of_file][:FAULTS_SHOWN]


def refuse_files(files: Mapping[str, RowFaults], *, cause: str = "", remedy: str) -> None:
    """Raises AnnotationError with the first faults of each file, if there are any."""
    count = sum(faults.count for faults in files.values())
    if not count:
        return
    told = []
    for file, faults in files.items():
        more = faults.count - len(faults.first)
        told += [file] * bool(faults.count) + faults.first
        told += [f"... and {more:,} more"] * bool(more)
    raise AnnotationError(
        f"what was handed over cannot be used: {count:,} fault{'s' * (count > 1)}",
        item="\n".join(told),
        cause=cause,
        remedy=remedy,
    )
