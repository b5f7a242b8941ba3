"""A run that kills itself, without any chance to tidy up, at a chosen commit.

``python -m tests.support.killed_run SETTINGS PATTERN MOMENT SHARD``: SETTINGS is JSON; at the first
file below the store that matches PATTERN, the process ends with SIGKILL, at a MOMENT of its commit:
``torn``, when half of the temporary file is written; ``before`` or ``after`` it is moved in place.
"""

import fnmatch
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import tasks.shards
from flows.engines.engine import InProcess
from flows.run import run_pipeline
from flows.settings import Settings


def main() -> None:
    settings = Settings.model_validate(json.loads(sys.argv[1]))
    tasks.shards.PICTURES = int(sys.argv[4])
    _kill_at(settings.store, sys.argv[2], sys.argv[3])
    run_pipeline(settings, InProcess())


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
