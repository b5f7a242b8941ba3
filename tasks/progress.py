"""Progress of long work: a bar with rate and ETA on a terminal, sparse log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0

_log = logging.getLogger(__name__)


class Counter(Protocol):
    """Told how much more is done."""

    def update(self, n: int) -> object: ...


@dataclass
class LogLines:
    """A counter that tells where it is every ``SECONDS_BETWEEN_LINES``."""

    label: str
    total: int
    unit: str
    done: int
    before: int = field(init=False)
    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.before = self.done

    def update(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.told >= SECONDS_BETWEEN_LINES:
            rate = (self.done - self.before) / (now - self.began)
            _log.info(
                "%s: %d of %d %s, %.1f/s, %.0f s left",
                self.label, self.done, self.total, self.unit, rate,
                (self.total - self.done) / rate,
            )  # fmt: skip
            self.told = now


class Task(NamedTuple):
    """So many units of work in all, of which some were done before."""

    label: str
    total: int
    unit: str
    done: int


Teller = Callable[[Task], AbstractContextManager[Counter]]

_teller: ContextVar[Teller | None] = ContextVar("teller", default=None)


def tell_by(teller: Teller) -> None:
    """From now on, in this thread, tell of progress elsewhere."""
    _teller.set(teller)


@contextmanager
def telling_by(teller: Teller) -> Iterator[None]:
    """``tell_by`` for the time being."""
    before = _teller.set(teller)
    try:
        yield
    finally:
        _teller.reset(before)


def count(label: str, total: int, unit: str, *, done: int = 0) -> AbstractContextManager[Counter]:
    """A counter for ``total`` units of work, of which so many were done before."""
    return (_teller.get() or told_here)(Task(label, total, unit, done))


@contextmanager
def told_here(task: Task) -> Iterator[Counter]:
    """A teller: on this process's terminal, or in its log."""
    label, total, unit, done = task
    if sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=f" {unit}", leave=False, initial=done) as bar:
            yield bar
    else:
        yield LogLines(label, total, unit, done)
