"""Runs that kill themselves, without any chance to tidy up, at a chosen commit.

``python -m tests.support.killed_run`` reads jobs on stdin, a line of JSON each: [SETTINGS, PATTERN,
MOMENT, SHARD]. At the first file below the settings' store that matches PATTERN, the run's process
ends with SIGKILL, at a MOMENT of its commit: ``torn``, when half of the temporary file is written;
``before`` or ``after`` it is moved in place. Each run is forked from this process, which has done
nothing but import what a run needs: a second or two in place of five. How it ended, its exit code
or minus the signal, is a line on stdout.
"""

import fnmatch
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401  # a run imports it late
import pyarrow as pa

import tasks.shards
from flows.engines.engine import InProcess
from flows.run import run_pipeline
from flows.settings import Settings

ROOT = Path(__file__).parents[2]
MOST_SECONDS = 120

pa.array([0])  # pyarrow imports pandas for its first array, where that is there: a second and more

Kill = Callable[[Settings, str, str, int], None]


@contextmanager
def killer(log: Path) -> Iterator[Kill]:
    """Start a run with these settings, pattern, moment and shard, and see it killed there; what it
    says goes to ``log``."""
    command = [sys.executable, "-m", "tests.support.killed_run"]
    pipe = subprocess.PIPE
    with (
        log.open("w") as told,
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=told, text=True) as one,
    ):

        def kill(settings: Settings, pattern: str, moment: str, shard: int) -> None:
            assert one.stdin is not None
            assert one.stdout is not None
            job = [settings.model_dump(mode="json"), pattern, moment, shard]
            one.stdin.write(json.dumps(job) + "\n")
            one.stdin.flush()
            assert one.stdout.readline() == f"{-signal.SIGKILL}\n", log.read_text()

        yield kill


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.alarm(MOST_SECONDS)
            _run(*json.loads(line))
            sys.exit()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(settings: dict[str, Any], pattern: str, moment: str, shard: int) -> None:
    asked = Settings.model_validate(settings)
    tasks.shards.PICTURES = shard
    _kill_at(asked.store, pattern, moment)
    run_pipeline(asked, InProcess())


def _kill_at(store: Path, pattern: str, moment: str) -> None:
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


if __name__ == "__main__":
    main()
