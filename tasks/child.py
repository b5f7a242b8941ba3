"""Fresh interpreters that work for this one.

Never forked from this process, whose threads and CUDA a fork would break. Neither torch's
DataLoader nor the standard library's pools: their workers import this process's script again, and
with it torch, or hand on errors as text, or outlive a parent that is killed. A child that lost its
parent reads the end of its pipe, and the reverse.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from typing import NamedTuple

BEGIN = """
import json, sys
from importlib import import_module
sys.path[:] = json.loads(sys.argv[1])
module, function = sys.argv[2].split(":")
getattr(import_module(module), function)(*map(int, sys.argv[3:]))
"""


class Lost(NamedTuple):
    """How a process ended before its work did, and whether a signal ended it."""

    fate: str
    was_killed: bool


_living = set[int]()
"""The processes that this one has started and not ended."""


def peak_of_children() -> int:
    """The most resident bytes of each process that works for this one now, summed; 0 where the
    system does not tell."""
    from cir_core.memory import resident_peak  # imports torch, which not every child needs

    return sum(resident_peak(process) or 0 for process in tuple(_living))


class Child:
    """One process, on the other end of ``channel``. It runs ``serve``, ``module:function``, with
    the descriptor of its end, and other numbers, of which some are open files."""

    def __init__(
        self,
        serve: str,
        *numbers: int,
        files: tuple[int, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.channel, theirs = Pipe()
        with theirs:
            told = map(str, (theirs.fileno(), *numbers))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", BEGIN, json.dumps(sys.path), serve, *told],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *files),
                env=None if environment is None else {**os.environ, **environment},
                start_new_session=True,  # a terminal's Ctrl-C is for the parent, which ends this
            )
        _living.add(self._process.pid)

    def fate(self) -> str:
        """How it ended, which it has, or is about to."""
        code = self._process.wait()
        if code < 0:
            return f"signal {-code}: somebody, or the system for want of memory, killed it"
        return f"exit code {code}; what it said is above"

    def lost(self) -> Lost:
        """The same, for who has to decide what follows."""
        return Lost(self.fate(), was_killed=self._process.wait() < 0)

    def end(self) -> None:
        """At once: what is under way is not wanted any more."""
        self.channel.close()
        self._process.kill()
        self._process.wait()
        _living.discard(self._process.pid)
