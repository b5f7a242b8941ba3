"""Clusters of a few workers on this machine's loopback, as somebody would start them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
SECONDS_TO_START = 60.0


@contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[str]:
    """Its address. Each worker has a thread, and is not started again when it is killed."""
    found = folder / "scheduler.json"
    file = ["--scheduler-file", str(found)]
    quiet = ["--host", LOOPBACK, "--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0"]
    with ExitStack() as ending:
        _start(ending, "dask_scheduler", "--port", "0", *file, *quiet)
        for _ in range(workers):
            scratch = ["--local-directory", str(folder)]
            _start(ending, "dask_worker", "--no-nanny", "--nthreads", "1", *file, *quiet, *scratch)
        yield _address(found, workers)


def _start(ending: ExitStack, command: str, *flags: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{command}", *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ending.callback(process.wait)
    ending.callback(process.kill)


def _address(found: Path, workers: int) -> str:
    """Once all are there."""
    from distributed import Client

    limit = time.monotonic() + SECONDS_TO_START
    while not found.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    with Client(scheduler_file=str(found)) as client:
        client.wait_for_workers(workers, timeout=SECONDS_TO_START)
        return str(client.scheduler.address)
