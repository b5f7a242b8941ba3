"""Holding a store: at once, or when whoever holds it has ended."""

import logging
import math
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cir_core.errors import StoreBusy
from storage.store import Store

POLL_SECONDS = 0.5
"""Between two looks at a lock: a look costs microseconds, and nobody notices half a second beside a
run's minutes."""

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}

FOREVER = "forever"

_DURATION = re.compile(rf"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>{'|'.join(UNITS)})")

_log = logging.getLogger(__name__)


def as_wait(text: str) -> str:
    """How long to wait, as it is typed. Raises ValueError for what is no time."""
    seconds_of(text)
    return text


def seconds_of(wait: str) -> float:
    """Of a number with its unit; infinite of ``forever``. Raises ValueError for anything else."""
    if wait == FOREVER:
        return math.inf
    found = _DURATION.fullmatch(wait)
    if found is None:
        raise ValueError(f"no time: say 90s, 30min, 2h, 1d or {FOREVER}")
    return float(found["number"]) * UNITS[found["unit"]]


@contextmanager
def leased(store: Store, wait: str | None = None) -> Iterator[None]:
    """Hold a store for this process, and have it say its format; with ``wait``, wait so long for
    another run to end, and say whom for.

    Raises StoreBusy as ``Store.lease``, or when that time is over; and as ``sign``.
    """
    from storage.signing import sign  # reads artifacts, which takes time to import

    with ExitStack() as held:
        _enter(held, store, wait)
        sign(store)
        yield


def _enter(held: ExitStack, store: Store, wait: str | None) -> None:
    end = time.monotonic() + (0 if wait is None else seconds_of(wait))
    told = ""
    while True:
        try:
            held.enter_context(store.lease())
        except StoreBusy as busy:
            left = end - time.monotonic()
            if left <= 0:
                raise _still_busy(busy, wait) from busy
            if busy.cause != told:
                told = busy.cause
                _log.info("waiting for the store: %s (Ctrl-C ends the wait)", told)
        else:
            return
        time.sleep(min(POLL_SECONDS, left))


def _still_busy(busy: StoreBusy, wait: str | None) -> StoreBusy:
    return StoreBusy(
        busy.what,
        item=busy.item,
        cause=busy.cause if wait is None else f"{busy.cause}, still after {wait}",
        remedy="have the command wait for it (--wait 2h), or use another --store",
    )
