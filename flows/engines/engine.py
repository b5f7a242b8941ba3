"""Who runs the tasks: this process, or Prefect. The composition does not know which."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import ParamSpec, TypeVar

from flows.engines.processes import Processes
from flows.engines.sharing import Workers, share_out
from tasks.machine import Machine
from tasks.stages.chronicle import Committed
from tasks.stages.output import Output, make_output
from tasks.stages.stage import Pass, make, make_here, missing_of

Given = ParamSpec("Given")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class Engine(ABC):
    """Runs one task to its end and returns its result; exceptions pass through. ``workers`` share
    the shards of a pass."""

    workers: Workers = Processes()

    @abstractmethod
    def observe(self, name: str, work: Callable[[], Result]) -> Result:
        """Do the work, under this name."""

    def run(
        self, task: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> Result:
        """One task, under the function's name."""
        return self.observe(task.__name__, partial(task, *args, **kwargs))

    def make(self, one_pass: Pass, machine: Machine) -> tuple[str, ...]:
        """What is missing of a pass; the names of the stages that had anything to do."""
        work = partial(make, one_pass, self.staffed(machine), self.each)
        return self.observe(one_pass.name, work)

    def staffed(self, machine: Machine) -> Machine:
        """With as many processes as there are workers."""
        return replace(machine, processes=self.workers.number(machine))

    def write(self, output: Output) -> tuple[str, ...]:
        """An output's files, if they are missing; its name if they were."""
        return self.observe(output.name, partial(make_output, output))

    def each(self, one_pass: Pass, shards: Sequence[str], machine: Machine) -> Iterable[Committed]:
        """See ``tasks.stages.stage.Each``: here, or by the workers."""
        if not self.workers.are_wanted(machine, shards):
            return make_here(one_pass, shards, machine)
        return share_out(self.workers, one_pass, shards, machine)

    @contextmanager
    def with_workers(self, opening: AbstractContextManager[Workers]) -> Iterator[None]:
        """These are open meanwhile, and share the shards."""
        before = self.workers
        try:
            with opening as self.workers:
                yield
        finally:
            self.workers = before


class InProcess(Engine):
    """Plain calls; ``seconds`` tells how long each task took, by its name, the last time, and
    ``last`` how long the last one took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = 0.0

    def observe(self, name: str, work: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        result = work()
        self.seconds[name] = self.last = time.perf_counter() - began
        _log.debug("%s took %.1f s", name, self.seconds[name])
        return result


class Prefect(Engine):
    """Each task is a Prefect task run of the surrounding flow run, tried again where its error may
    pass; how far it is, is told there, too.

    Nothing is cached or persisted by Prefect: our manifests alone decide what is done, and they
    notice a missing file or other weights, which Prefect's keys do not.
    """

    def observe(self, name: str, work: Callable[[], Result]) -> Result:
        from flows.engines.observed import as_task

        return as_task(work, name=name)

    def make(self, one_pass: Pass, machine: Machine) -> tuple[str, ...]:
        """As every engine's; the task run's name tells which shards were missing, and where
        nothing was, there is no task run."""
        from flows.engines.observed import as_task

        known = [missing_of(one_pass)]
        if not known[0].stages:
            return ()

        def work() -> tuple[str, ...]:
            """What is known is so the first time alone."""
            staffed = self.staffed(machine)
            return make(one_pass, staffed, self.each, missing=known.pop() if known else None)

        shards = told_shards(known[0].shards)
        return as_task(work, name=one_pass.name, run_name=f"{one_pass.name} {shards}".strip())


def told_shards(shards: Sequence[str]) -> str:
    """From where to where, and how many; nothing of what has no shards."""
    if len(shards) < 2:  # noqa: PLR2004 - one is told by its name
        return "".join(shards)
    first, last = shards[0].partition("-")[0], shards[-1].rpartition("-")[2]
    return f"{first}-{last} ({len(shards)} shards)"
