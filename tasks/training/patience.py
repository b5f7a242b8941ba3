"""Signals that ask a training to stop."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


@contextmanager
def patience() -> Iterator[list[int]]:
    """Signals that ask to stop, noted instead of acted on: a step is not torn in two. On leaving,
    the first one is raised again for whoever handled it before; a second one acts at once. What
    is ignored, as in the background of a shell, stays ignored."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # a worker's thread: signals go to the main one
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: one for number, one in handlers.items() if one != signal.SIG_IGN}

    def note(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(number, before[signal.Signals(number)])
        _log.warning("stopping after this step; once more stops at once")

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        signal.raise_signal(asked[0])
