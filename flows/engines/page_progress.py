"""How far a task is, as a progress artifact on Prefect's pages, and here as without Prefect."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from flows.engines.prefect_api import fault_of
from tasks.progress import Counter, Task, told_here

SERVER_ERRORS = (httpx.HTTPError, PrefectException, RuntimeError, ValueError, OSError)
"""No connection, an error's status, no answer within the limit, another version's answer."""

SECONDS_BETWEEN_SHOWS = 5.0
"""A show is a request, of some 20 ms, for which the work waits."""

SECONDS_OF_LOSS = 60.0
"""How long a server that did not answer is left alone: finding that out may take 5 s each time."""

_log = logging.getLogger(__name__)


@contextmanager
def told_on_page(task: Task) -> Iterator[Counter]:
    """A teller (``tasks.progress``) for within a Prefect task: where the server does not answer,
    its page is behind, and nothing else happens."""
    with told_here(task) as here:
        shown = _Shown(task, here)
        shown.show()
        try:
            yield shown
        finally:
            shown.show_last()


class _Shown:
    """A counter that shows where it is, at most every ``SECONDS_BETWEEN_SHOWS``."""

    def __init__(self, task: Task, here: Counter) -> None:
        self._task, self._here, self._done = task, here, task.done
        self._shown = -1
        self._artifact: UUID | None = None
        self._next = 0.0

    def update(self, n: int) -> None:
        self._here.update(n)
        self._done += n
        if time.monotonic() >= self._next:
            self.show()

    def show(self) -> None:
        is_shown = _try_once(self._put)
        pause = SECONDS_BETWEEN_SHOWS if is_shown else SECONDS_OF_LOSS
        self._next = time.monotonic() + pause

    def show_last(self) -> None:
        """Where the work has ended, unless that is shown or the server was lost just now."""
        if self._shown not in (self._done, -1):
            self.show()

    def _put(self) -> None:
        label, total, unit, _ = self._task
        percent = 100 * min(1.0, self._done / total) if total else 100.0
        words = f"{label}: {self._done:,} of {total:,} {unit}"
        if self._artifact is None:
            made = create_progress_artifact(percent, key_of(label), words)
            assert isinstance(made, UUID), "no event loop is running here"
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent, words)
        self._shown = self._done


def key_of(label: str) -> str:
    """An artifact's key has lower-case letters, digits and dashes alone."""
    return "progress-" + re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _try_once(show: Callable[[], object]) -> bool:
    """Whether the server took it. What is soon out of date is not waited for, as ``attempt`` does:
    a server that is lost is asked whether it is there, and no more."""
    url = get_current_settings().api.url
    fault = fault_of(url) if url else ""
    if not fault:
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                show()
        except SERVER_ERRORS as error:
            fault = str(error)
    if fault:
        _log.info("Prefect does not show how far this is: %s", fault)
    return not fault
