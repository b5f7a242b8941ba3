"""A process that makes some shards of a pass for another one."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from cir_core.errors import CirError
from tasks.looking import enter
from tasks.machine import Machine
from tasks.progress import Task, tell_by
from tasks.stages.stage import Pass, make_here

SERVE = "tasks.worker:serve"
"""For ``Child``."""

SECONDS_BETWEEN_COUNTS = 0.1


@dataclass(frozen=True)
class Job:
    """Shards of a pass for one worker, what it may use, from which level on it logs, and from which
    folder relative names are meant."""

    one_pass: Pass
    shards: list[str]
    machine: Machine
    level: int
    folder: Path


class Counted(NamedTuple):
    """More of the task is done."""

    units: int


class Ended(NamedTuple):
    """All shards are made; or why they are not."""

    error: CirError | None


def serve(channel: int) -> None:
    """Do one ``Job``: says Committed, Task, Counted and log records, and at last Ended. Ends with
    its parent, however that ends; a bug's traceback goes to stderr, and the exit code is 1."""
    parent = _Parent(Connection(channel))
    job = parent.receive()
    enter(job.folder)
    logging.getLogger().addHandler(_Forwarding(parent))
    logging.getLogger().setLevel(job.level)
    tell_by(parent.counting)
    error = None
    try:
        for done in make_here(job.one_pass, job.shards, job.machine):
            parent.tell(done)
    except CirError as caught:
        error = caught
    parent.tell(Ended(error))


class _Parent:
    """The other end of the channel; several threads may tell it something."""

    def __init__(self, channel: Connection) -> None:
        self._channel, self._lock = channel, threading.Lock()

    def receive(self) -> Job:
        job: Job = self._channel.recv()
        threading.Thread(target=self._end_with_it, daemon=True).start()
        return job

    def tell(self, what: Any) -> None:
        with self._lock:
            self._channel.send(what)

    @contextmanager
    def counting(self, task: Task) -> Iterator["_Counter"]:
        self.tell(task)
        counter = _Counter(self)
        yield counter
        counter.flush()

    def _end_with_it(self) -> None:
        """It says nothing more: what can be read is the end of its pipe."""
        try:
            self._channel.recv()
        except (EOFError, OSError):
            os._exit(1)


class _Counter:
    """Tells a few times a second."""

    def __init__(self, parent: _Parent) -> None:
        self._parent, self._units, self._told = parent, 0, time.monotonic()

    def update(self, n: int) -> None:
        self._units += n
        if time.monotonic() - self._told > SECONDS_BETWEEN_COUNTS:
            self.flush()

    def flush(self) -> None:
        self._parent.tell(Counted(self._units))
        self._units, self._told = 0, time.monotonic()


class _Forwarding(logging.Handler):
    """Records go to the parent's loggers, their text made here."""

    def __init__(self, parent: _Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        record.exc_info = None
        self._parent.tell(record)
