"""What is wanted of earlier artifacts, and which of these can be read."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from cir_core.errors import StoreCorrupt
from storage.relatives import ingested_for
from storage.view import View, Viewed
from tasks.stages.contents import Contents

_log = logging.getLogger(__name__)

Found = TypeVar("Found")


class Wanted:
    """Which of so many things nobody was found to have yet."""

    def __init__(self, count: int) -> None:
        self._is_left = np.ones(count, dtype=bool)

    def read(self, every: Iterable[Viewed], read: Callable[[Viewed], Found]) -> Iterator[Found]:
        """As long as anything is wanted."""
        if self._is_left.any():
            for found in readable(every, read):
                yield found
                if not self._is_left.any():
                    return

    def take(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of what somebody has, by the number of each thing (-1: it is not asked for), those that
        are wanted, ascending, and the first place of each; they are not wanted any more."""
        mine, place = np.unique(number, return_index=True)
        new = (mine >= 0) & self._is_left[mine]
        self._is_left[mine[new]] = False
        return mine[new], place[new]


def readable(every: Iterable[Viewed], read: Callable[[Viewed], Found]) -> Iterator[Found]:
    """What is read of each; what cannot be is left out."""
    for one in every:
        try:
            yield read(one)
        except StoreCorrupt as error:
            _log.warning("nothing is taken over from %s: %s", one, error.in_a_line)


def contents_for(view: View, *roles: str) -> Contents:
    """What a view's ids stand for, by the first split of its digests in these roles that can be
    read. Raises StoreCorrupt where there is none any more."""
    for contents in readable(ingested_for(view, *roles), Contents.of):
        return contents
    raise StoreCorrupt(
        "what an artifact's ids stand for is not known any more",
        item=str(view),
        cause="the artifact of the ingested images and queries is gone, or damaged",
        remedy="repeat the command that made it, or leave it",
    )
