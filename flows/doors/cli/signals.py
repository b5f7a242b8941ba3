"""How Ctrl-C and ``kill`` end a command: in order where that is safe, else at once."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def end_on_signals() -> None:
    """The first SIGINT or SIGTERM ends the process in order, by SystemExit with 128 + its number;
    amid an import, and the second time, at once by the same exit code. What is ignored, as in the
    background of a shell, stays ignored."""
    _handle(_end)


def _handle(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    for number in WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    _handle(_end_at_once)
    # Modules that are imported catch what is raised in them and go on without what they lack.
    if _is_importing(frame):
        _end_at_once(number, frame)
    _tell(number)
    sys.exit(128 + number)


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    """No part is torn: each is written beside its place and renamed."""
    _tell(number)
    os._exit(128 + number)


def _tell(number: int) -> None:
    """Past Python's buffers: the signal may have come while they were being written."""
    word = WORDS[signal.Signals(number)]
    line = f"{word}; finished parts are kept: run the same command again to go on\n"
    with suppress(OSError):  # nobody is there to be told
        os.write(2, line.encode())


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
