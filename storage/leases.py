"""Who may write an object store: an object that its holder writes anew, beat by beat.

Nothing there is released when a process ends. So a holder that does not write any more is dead:
one of this machine as soon as its process is gone, another when its object has stayed the same for
``PATIENCE``, by the clock of who waits, not by any time that is written down.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cir_core.errors import CirError, StoreBusy
from storage.atomic import process_start
from storage.objects import Objects

NAME = "lease.json"

BEAT = 2.0
"""Seconds between two writes: 43,200 requests a day, 0.2 dollars."""

PATIENCE = 20.0
"""Seconds, ten beats: a holder whose requests are answered that late has lost the store."""

_log = logging.getLogger(__name__)

_lost: dict[str, StoreBusy] = {}
"""Of this process, by URL: what it held, and does not any more."""


@dataclass
class _Lease:
    """This process's. ``tag`` is that of the last beat."""

    objects: Objects
    tag: str = ""
    beat: int = 0
    name: dict[str, Any] = field(default_factory=lambda: {**_myself(), "lease": uuid.uuid4().hex})

    def content(self) -> bytes:
        return json.dumps({**self.name, "beat": self.beat}).encode()

    def take(self) -> None:
        """Raises StoreBusy, naming the holder, when another one lives."""
        while True:
            tag = self.objects.create(NAME, self.content())
            if tag is None:
                tag = self._take_over()
            if tag is not None:
                self.tag = tag
                return

    def _take_over(self) -> str | None:
        """None where the lease has gone, or another was faster."""
        with suppress(FileNotFoundError):
            text, tag = self.objects.get(NAME)
            holder = _parsed(text)
            if not _has_died(holder) and _lives(self.objects, tag):
                raise _busy(self.objects, holder)
            _log.warning("%s is dead, and its lease on the store is taken over", _told(holder))
            return self.objects.replace(NAME, self.content(), tag)
        return None

    def keep(self, ended: threading.Event) -> None:
        """Until it ends, or is lost."""
        written = time.monotonic()
        while not ended.wait(BEAT):
            self.beat += 1
            try:
                tag = self.objects.replace(NAME, self.content(), self.tag)
            except CirError as error:
                _log.warning("the lease on the store is not renewed: %s", error.in_a_line)
                if time.monotonic() - written < PATIENCE:
                    continue
                tag = None
            if tag is None:
                _lost[self.objects.url] = _lost_of(self.objects)
                _log.error("%s", _lost[self.objects.url].in_a_line)
                return
            self.tag, written = tag, time.monotonic()

    def release(self) -> None:
        if _lost.pop(self.objects.url, None) is None:
            with suppress(CirError):  # who comes next waits for it to be dead
                self.objects.remove(NAME)


@contextmanager
def lease(objects: Objects) -> Iterator[None]:
    """Hold the store for this process, while the block runs. Raises StoreBusy, naming the holder:
    at the first of its beats, so after ``BEAT`` seconds at most; and as ``Objects``."""
    mine, ended = _Lease(objects), threading.Event()
    mine.take()
    keeper = threading.Thread(target=mine.keep, args=(ended,), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        mine.release()


def require_held(objects: Objects) -> None:
    """Raises StoreBusy in a process whose lease another one has taken over: what it writes from
    then on would be in the other's way."""
    if objects.url in _lost:
        raise _lost[objects.url]


def holder_of(objects: Objects) -> str | None:
    """Who holds the store, or did until it died elsewhere; None where it is free."""
    try:
        holder = _parsed(objects.get(NAME)[0])
    except FileNotFoundError:
        return None
    return None if _has_died(holder) else _told(holder)


def _lives(objects: Objects, tag: str) -> bool:
    """Whether another beat comes, or the lease is given back, within ``PATIENCE``."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        time.sleep(BEAT / 4)
        found = objects.find(NAME)
        if found is None:
            raise FileNotFoundError(NAME)
        if found.tag != tag:
            return True
    return False


def _myself() -> dict[str, Any]:
    process = os.getpid()
    return {"host": socket.gethostname(), "process": process, "began": process_start(process),
            "machine": _machine()}  # fmt: skip


@cache
def _machine() -> str:
    """Where a process's number means the same: one system since it was started, and one of its
    spaces of numbers, of which every container has its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # no other process is known to be of it


def _parsed(text: bytes) -> dict[str, Any]:
    """Nothing of what is no lease."""
    with suppress(ValueError):
        holder = json.loads(text)
        if isinstance(holder, dict):
            return holder
    return {}


def _has_died(holder: dict[str, Any]) -> bool:
    """Whether it was of this machine, and is gone; of others nothing is known."""
    if holder.get("machine") != _machine():
        return False
    return process_start(int(holder["process"])) != holder["began"]


def _told(holder: dict[str, Any]) -> str:
    if not holder:
        return "unknown"
    if holder.get("machine") == _machine():
        return str(holder["process"])
    return f"{holder.get('process')} on {holder.get('host')}"


def _busy(objects: Objects, holder: dict[str, Any]) -> StoreBusy:
    return StoreBusy(
        "another run holds the store",
        item=objects.url,
        cause=f"held by process {_told(holder)}",
        remedy="wait for it to end, or use another --store",
    )


def _lost_of(objects: Objects) -> StoreBusy:
    return StoreBusy(
        "the store is not held any more",
        item=objects.url,
        cause=f"its lease was not renewed for {PATIENCE:.0f} s, or another run has taken it over",
        remedy="see to the network, then run the same command again: what is there is kept",
    )
