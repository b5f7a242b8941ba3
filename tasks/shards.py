"""What is committed at a time: shards of pictures, in parts where much is asked of few pictures."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from storage.arrays import ARRAY_SUFFIX

PICTURES = 256
"""Of a shard: the unit of commit, of loss when a run is killed, and of what workers share."""

WHOLE = ""
"""The shard of a stage that has no other."""

_SPLIT = re.compile(r"(?P<shard>.+)-(?P<start>\d{10})-(?P<stop>\d{10})-of-(?P<total>\d+)")


@dataclass(frozen=True)
class Part:
    """Of the items that a shard has, in an order that nothing but the inputs decides, the ``items``
    from so many to so many, ``of`` all. So a name tells what is in a part, however many parts
    there are, and whatever ``--batch`` is when an interrupted run goes on."""

    shard: str
    items: range
    of: int

    @property
    def name(self) -> str:
        """The shard's, and where it is split, which of how many items."""
        if len(self.items) == self.of:
            return self.shard
        return f"{self.shard}-{_digits(self.items, 10)}-of-{self.of}"


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

    def is_missing(self, some: np.ndarray) -> np.ndarray:
        """Of the shard's items at these places, whether each one's part is missing."""
        return self._is_missing[some - self.items.start]

    @cached_property
    def _is_missing(self) -> np.ndarray:
        found = np.zeros(len(self.items), dtype=bool)
        for part in self.missing:
            found[slice_of(part.items)] = True
        return found


class Place(NamedTuple):
    """What a committed part's name tells: its kind, its shard, and how much of that it holds."""

    kind: str
    shard: str
    start: int = 0
    share: float = 1.0


def place_of(name: str) -> Place:
    """Of a part's name, with its kind."""
    kind, _, rest = name.removesuffix(ARRAY_SUFFIX).partition("-")
    split = _SPLIT.fullmatch(rest)
    if split is None:
        return Place(kind, rest)
    start, stop, total = (int(split[of]) for of in ("start", "stop", "total"))
    return Place(kind, split["shard"], start, (stop - start) / total)


def part_name(kind: str, shard: str) -> str:
    """Of the one part of this kind that a shard has."""
    return f"{kind}-{shard}" if shard else kind


def ranges(total: int, size: int) -> Sequence[range]:
    """0..total in consecutive ranges of ``size``, the last one shorter; never no range, so that an
    artifact over nothing still has its (empty) parts."""
    return [range(start, min(start + size, total)) for start in range(0, max(total, 1), size)]


def shards_of(pictures: int) -> list[str]:
    """The names of the shards of so many pictures."""
    return [_digits(rows, 7) for rows in ranges(pictures, PICTURES)]


def order_of(shard: str) -> tuple[int, str]:
    """To sort the shards of a stage by: a number of more digits than there are zeros to fill comes
    last, as from picture 10,000,000 on."""
    return len(shard), shard


def rows_in(shard: str) -> range:
    """The pictures of a shard."""
    start, _, stop = shard.partition("-")
    return range(int(start), int(stop))


def parts(shard: str, items: int, size: int) -> list[Part]:
    """Those of a shard with so many items, ``size`` each; of no items, one."""
    return [Part(shard, some, items) for some in ranges(items, size)]


def shares_left(
    committed: Iterable[str], shards: Sequence[str], kinds: Iterable[str]
) -> dict[str, float]:
    """How much of each shard is not in these parts, of the kind that lacks most; the shards of
    which nothing is left are not in it."""
    done = {(kind, shard): 0.0 for kind in kinds for shard in shards}
    for place in map(place_of, committed):
        if (place.kind, place.shard) in done:
            done[place.kind, place.shard] += place.share
    left = dict.fromkeys(shards, 0.0)
    for (_, shard), share in done.items():
        left[shard] = max(left[shard], 1 - share)
    return {shard: share for shard, share in left.items() if share > ROUNDING}


ROUNDING = 1e-9
"""Of a sum of shares: a part holds a ten-thousandth of its shard or more."""


def slice_of(some: range, base: int = 0) -> slice:
    """To index an array that begins at ``base`` with."""
    return slice(some.start - base, some.stop - base)


def _digits(rows: range, width: int) -> str:
    return f"{rows.start:0{width}d}-{rows.stop:0{width}d}"
