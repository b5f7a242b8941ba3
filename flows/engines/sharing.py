"""Several workers share the shards of a pass, whoever they are: processes of this machine, or a
cluster's."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from cir_core.errors import WorkerLost
from cir_core.planning.schedule import shared_out
from tasks.child import Lost
from tasks.machine import Machine
from tasks.progress import Counter, Task, count
from tasks.stages.chronicle import Committed
from tasks.stages.stage import Pass
from tasks.worker import Counted, Ended, Job

ROUNDS = 3
"""How often shards are given out at most, when workers are killed: what the third of them in a row
dies of is no accident."""

_log = logging.getLogger(__name__)


class Share(NamedTuple):
    """What one of several workers has: its part of the machine, the environment that holds it to
    that, and where it is, as its cluster calls it."""

    machine: Machine
    environment: Mapping[str, str]
    place: str = ""


class Given(NamedTuple):
    """A job, and who does it."""

    share: Share
    job: Job


class Workers(ABC):
    """Several workers that can be given jobs."""

    def number(self, machine: Machine) -> int:
        """How many there are."""
        return machine.processes

    def are_wanted(self, machine: Machine, shards: Sequence[str]) -> bool:
        """Whether shards are theirs, not this process's."""
        return machine.processes > 1 and len(shards) > 1

    @abstractmethod
    def shares(self, machine: Machine, most: int) -> Sequence[Share]:
        """Those who are there now, at most so many, and what each has."""

    @abstractmethod
    def serve(self, given: Sequence[Given]) -> AbstractContextManager[Iterator[Any]]:
        """What all say, as it comes: Committed, Task, Counted and log records, and of each at last
        Ended or Lost. Once it is left, nobody works any more."""


def share_out(
    workers: Workers, one_pass: Pass, shards: Sequence[str], machine: Machine
) -> Iterator[Committed]:
    """An ``Each``: workers, each with its own models, make the shards, which are shared out by
    weight; what they commit has the same bytes as one process's with as many threads.

    Errors of a worker are raised here, and end the others. The shards of one that is killed are
    given out again, the others' results stay; after ``ROUNDS`` raises WorkerLost. However this
    ends, no worker goes on.
    """
    left, lost = list(shards), list[Lost]()
    for _ in range(ROUNDS):
        lost.clear()
        given = _given(workers, one_pass, left, machine)
        yield from _one_round(workers, given, lost)
        if not lost:
            return
        _log.warning("%d of %d workers have died: %s", len(lost), len(given), lost[0].fate)
        missing = {
            shard for stage in one_pass.stages if not stage.made.is_whole for shard in stage.left()
        }
        left = [shard for shard in shards if shard in missing]
        if not left:
            return
    raise WorkerLost(
        "processes that share the work die again and again",
        cause=lost[0].fate,
        remedy="run the same command again: finished parts are kept; fewer --processes need less "
        "memory",
    )


def _given(
    workers: Workers, one_pass: Pass, shards: Sequence[str], machine: Machine
) -> Sequence[Given]:
    """Who does which shards."""
    shares = workers.shares(machine, len(shards))
    level = logging.getLogger().getEffectiveLevel()
    mine = shared_out(one_pass.weights(shards), len(shares))
    return [
        Given(
            share,
            Job(one_pass, [shards[one] for one in numbers], share.machine, level, Path.cwd()),
        )
        for share, numbers in zip(shares, mine, strict=True)
    ]


def _one_round(workers: Workers, given: Sequence[Given], lost: list[Lost]) -> Iterator[Committed]:
    """Give the shards out once; workers that were killed are added to ``lost``."""
    with workers.serve(given) as all_say, _Progress(len(given)) as progress:
        for said in all_say:
            if isinstance(said, Committed):
                yield said
            elif isinstance(said, Ended):
                progress.ended()
                if said.error is not None:
                    raise said.error
            elif isinstance(said, Lost):
                progress.ended()
                lost.append(_killed(said))
            elif isinstance(said, logging.LogRecord):
                logging.getLogger(said.name).handle(said)
            else:
                progress.note(said)


def _killed(lost: Lost) -> Lost:
    """A worker that was killed; raises WorkerLost for one that ended by itself, which a second one
    would do again."""
    if lost.was_killed:
        return lost
    raise WorkerLost(
        "a process that shares the work has failed",
        cause=lost.fate,
        remedy="this is a bug: please report it; --processes 1 works without other processes",
    )


class _Progress:
    """One counter of what all workers do, once each has said how much that is."""

    def __init__(self, workers: int) -> None:
        self._silent, self._tasks, self._units = workers, list[Task](), 0
        self._counter: Counter | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def note(self, said: Task | Counted) -> None:
        if isinstance(said, Task):
            self._tasks.append(said)
            self._begin()
        elif self._counter is None:
            self._units += said.units
        else:
            self._counter.update(said.units)

    def ended(self) -> None:
        """Of a worker."""
        self._silent -= 1
        self._begin()

    def _begin(self) -> None:
        if self._counter is None and self._tasks and len(self._tasks) >= self._silent:
            label, total, unit, _ = self._tasks[0]
            missing = sum(task.total - task.done for task in self._tasks)
            counting = count(label, total, unit, done=total - missing)
            self._counter = self._open.enter_context(counting)
            if self._units:
                self._counter.update(self._units)
