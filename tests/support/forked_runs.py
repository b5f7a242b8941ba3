"""Runs in processes of their own, something of whose surroundings fails.

``python -m tests.support.forked_runs`` reads jobs on stdin, a line of JSON each: [FAULT, ARGUMENTS,
SETTINGS, SHARD], where FAULT, ``module:function``, is called with the ARGUMENTS before the run
begins. Each run is forked from this process, which has done nothing but import what a run needs: a
second or two in place of five. How it ended is a line on stdout: its exit code, which is that of
the command line, or minus the signal.
"""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401  # a run imports it late
import pyarrow as pa

import tasks.shards
from cir_core.errors import CirError
from flows.engines.engine import InProcess
from flows.run import run_pipeline
from flows.settings import Settings

ROOT = Path(__file__).parents[2]
MOST_SECONDS = 120
MOST_FILES = 64
"""Open at once, by a run of whatever size: a part is closed before the next."""

pa.array([0])  # pyarrow imports pandas for its first array, where that is there: a second and more

ForkedRun = Callable[..., int]
"""``(settings, fault, *arguments, shard=...)`` to how the run ended."""


@contextmanager
def forking(log: Path) -> Iterator[ForkedRun]:
    """Runs with these settings, among a fault; what they say goes to ``log``."""
    command = [sys.executable, "-m", "tests.support.forked_runs"]
    pipe = subprocess.PIPE
    with (
        log.open("w") as told,
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=told, text=True) as one,
    ):

        def run(settings: Settings, fault: str, *arguments: Any, shard: int = 256) -> int:
            assert one.stdin is not None
            assert one.stdout is not None
            job = [fault, arguments, settings.model_dump(mode="json"), shard]
            one.stdin.write(json.dumps(job) + "\n")
            one.stdin.flush()
            return int(one.stdout.readline())

        yield run


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.alarm(MOST_SECONDS)
            _run(*json.loads(line))
            sys.exit()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(fault: str, arguments: list[Any], settings: dict[str, Any], shard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, MOST_FILES))
    asked = Settings.model_validate(settings)
    tasks.shards.PICTURES = shard
    module, _, function = fault.partition(":")
    getattr(import_module(module), function)(*arguments)
    try:
        run_pipeline(asked, InProcess())
    except CirError as error:
        logging.error("%s", error)  # noqa: TRY400 - as the command line tells it
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
