"""Who has work done on another machine: it starts the process that does it, and hands on what that
says. It imports neither torch nor what it starts, so that a cluster's worker stays small."""

import pickle
import threading
import time
from collections.abc import Mapping

from tasks.child import Child, Lost

SECONDS_PER_ANSWER = 1.0
"""How long ``hear`` waits for a word: it holds up ``end`` and whoever asks no longer."""

MOST_WORDS = 1000
"""Of one answer: a table's progress, log lines and parts stay far below."""

SECONDS_UNHEARD = 60.0
"""After which nobody is believed to wait for the work any more: many times what a busy scheduler
leaves unanswered."""


class Agent:
    """Has one piece of work done at a time, each by a fresh interpreter with an environment of its
    own. Ends it when it is told to, when nobody has heard it for ``SECONDS_UNHEARD``, and when the
    agent's own process ends, however."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._heard = time.monotonic()

    def begin(self, serve: str, order: bytes, environment: Mapping[str, str]) -> None:
        """Start ``serve``, ``module:function``, and send it its pickled order; ends what was under
        way."""
        self.end()
        self._child = child = Child(serve, environment=environment)
        self._heard = time.monotonic()
        child.channel.send_bytes(order)
        threading.Thread(target=self._end_unheard, args=(child,), daemon=True).start()

    def hear(self) -> list[bytes]:
        """What it has said since, each pickled; nothing when it says nothing for a while. At its
        end, whether or not it said that it ends, Lost."""
        self._heard = time.monotonic()
        child, said = self._child, list[bytes]()
        if child is None:
            return [pickle.dumps(Lost("nothing is under way", was_killed=True))]
        try:
            if child.channel.poll(SECONDS_PER_ANSWER):
                said.append(child.channel.recv_bytes())
            while said and len(said) < MOST_WORDS and child.channel.poll(0):
                said.append(child.channel.recv_bytes())
        except (EOFError, OSError):
            said.append(pickle.dumps(child.lost()))
        return said

    def end(self) -> None:
        """Of what is under way, at once."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _end_unheard(self, child: Child) -> None:
        while self._child is child:
            if time.monotonic() - self._heard > SECONDS_UNHEARD:
                self.end()
            time.sleep(SECONDS_PER_ANSWER)
