"""A run that kills itself, without any chance to tidy up, at a chosen commit."""

import fnmatch
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.settings import Settings
from tests.support.forked_runs import forking

Kill = Callable[[Settings, str, str, int], None]


@contextmanager
def killer(log: Path) -> Iterator[Kill]:
    """Start a run with these settings, pattern, moment and shard, and see it killed there; what it
    says goes to ``log``."""
    with forking(log) as run:

        def kill(settings: Settings, pattern: str, moment: str, shard: int) -> None:
            at = (str(settings.store), pattern, moment)
            ended = run(settings, "tests.support.killed_run:kill_at", *at, shard=shard)
            assert ended == -signal.SIGKILL, log.read_text()

        yield kill


def kill_at(store: str, pattern: str, moment: str) -> None:
    """At the first file below the store that matches the pattern, at a moment of its commit:
    ``torn``, when half of the temporary file is written; ``before`` or ``after`` it is moved in
    place."""
    replace = os.replace

    def deadly(source: Any, target: Any) -> None:
        path = Path(target)
        chosen = path.is_relative_to(store) and fnmatch.fnmatch(
            str(path.relative_to(store)), pattern
        )
        if chosen and moment == "torn":
            os.truncate(source, os.stat(source).st_size // 2)
        if not chosen or moment == "after":
            replace(source, target)
        if chosen:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly  # type: ignore[assignment]
