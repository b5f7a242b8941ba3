"""What is committed at a time: shards of pictures, in parts where much is asked of few pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Part:
    """Of the items that a shard of pictures has, in an order that nothing but the inputs decides,
    the ``items`` from so many to so many, ``of`` all. So a name tells what is in a part, however
    many parts there are, and whatever ``--batch`` is when an interrupted run goes on."""

    rows: range
    items: range
    of: int

    @property
    def name(self) -> str:
        """The shard's, and where it is split, which of how many items."""
        if len(self.items) == self.of:
            return shard_name(self.rows)
        return f"{shard_name(self.rows)}-{_digits(self.items, 10)}-of-{self.of}"


@dataclass(frozen=True)
class Shard:
    """Where the items of a shard of pictures stand among all, and the parts that they go to; those
    that are ``missing`` are not committed yet."""

    items: range
    parts: list[Part]
    missing: list[Part]

    def of(self, part: Part) -> range:
        """Where the part's items stand."""
        return self.items[part.items.start : part.items.stop]

    def is_missing(self, some: range) -> np.ndarray:
        """Of each of some of the shard's items, whether its part is missing."""
        return self._is_missing[slice_of(some, self.items.start)]

    @cached_property
    def _is_missing(self) -> np.ndarray:
        found = np.zeros(len(self.items), dtype=bool)
        for part in self.missing:
            found[slice_of(part.items)] = True
        return found


def shards(total: int, size: int) -> Sequence[range]:
    """The rows 0..total in consecutive ranges of ``size``, the last one shorter; never no range,
    so that an artifact over nothing still has its (empty) parts."""
    return [range(start, min(start + size, total)) for start in range(0, max(total, 1), size)]


def parts(rows: range, items: int, size: int) -> list[Part]:
    """Those of a shard with so many items, ``size`` each; of no items, one."""
    return [Part(rows, some, items) for some in shards(items, size)]


def shard_name(rows: range) -> str:
    """The rows in the name of a part; sorts as the rows do."""
    return _digits(rows, 7)


def is_whole(names: Iterable[str], rows: range) -> bool:
    """Whether all of a shard is in parts of these names, among others'."""
    shard, reached, total = shard_name(rows), 0, -1
    for name in sorted(names):
        if name == shard:
            return True
        if name.startswith(f"{shard}-"):
            start, stop, _, of = name.removeprefix(f"{shard}-").split("-")
            total = int(of)
            reached = int(stop) if int(start) == reached else reached
    return reached == total


def slice_of(some: range, base: int = 0) -> slice:
    """To index an array that begins at ``base`` with."""
    return slice(some.start - base, some.stop - base)


def _digits(rows: range, width: int) -> str:
    return f"{rows.start:0{width}d}-{rows.stop:0{width}d}"
