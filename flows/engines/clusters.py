"""Workers behind a cluster's library, of this machine or of others, each met through an agent."""

import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from cir_core.errors import PreflightError
from flows.engines.library import Distant, Gone, Library
from flows.engines.processes import shares_of, with_threads
from flows.engines.scouting import Needs, look_at, require_own_gpus
from flows.engines.sharing import Given, Share, Workers
from tasks.child import Lost
from tasks.looking import Seen
from tasks.machine import VISIBLE, Machine
from tasks.worker import SERVE, Ended


class Local(Workers):
    """As many as ``machine.processes``, with equal shares of this machine; the library is opened
    for the first job, and closed with the stack."""

    def __init__(self, opening: AbstractContextManager[Library], stack: ExitStack) -> None:
        self._opening, self._stack = opening, stack
        self._library: Library | None = None
        self._agents = dict[str, Distant]()

    def shares(self, machine: Machine, most: int) -> Sequence[Share]:
        shares = shares_of(machine, min(machine.processes, most))
        if self._library is None:
            self._library = self._stack.enter_context(self._opening)
        for place in [*self._library.places(on_gpu=False)][: len(shares)]:
            if place not in self._agents:
                self._agents[place] = self._library.agent(place, on_gpu=False)
        return [
            share._replace(place=place) for share, place in zip(shares, self._agents, strict=False)
        ]

    def serve(self, given: Sequence[Given]) -> AbstractContextManager[Iterator[Any]]:
        return served(self._agents, given)


class Cluster(Workers):
    """Those of a running cluster, at most so many. Each is looked at before it has its first job;
    raises PreflightError for one that cannot do this run's work, and where there is none."""

    def __init__(self, library: Library, needs: Needs, most: int | None) -> None:
        self._library, self._needs, self._most = library, needs, most
        self._agents, self._seen = dict[str, Distant](), dict[str, Seen]()
        self._threads = dict[str, int]()
        self.meet()

    def number(self, machine: Machine) -> int:
        return len(self._agents)

    def are_wanted(self, machine: Machine, shards: Sequence[str]) -> bool:
        return len(shards) > 1

    def meet(self) -> None:
        """Who is there now: those who are not any more are forgotten, new ones looked at."""
        on_gpu = self._needs.on_gpu
        there = self._library.places(on_gpu=on_gpu)
        self._threads = dict([*there.items()][: self._most])
        self._agents = {place: one for place, one in self._agents.items() if place in self._threads}
        new = [place for place in self._threads if place not in self._agents]
        with ThreadPoolExecutor(max(1, len(new))) as threads:
            for place, (agent, seen) in zip(new, threads.map(self._hire, new), strict=True):
                self._agents[place], self._seen[place] = agent, seen
        require_own_gpus({place: self._seen[place] for place in self._agents})
        if not self._agents:
            raise PreflightError(
                f"the {self._library.noun} cluster has no workers",
                cause="none is connected" + " that has a GPU, as --device says" * on_gpu,
                remedy="start some (see docs/running.md), or wait until they have started",
            )

    def dismiss(self) -> None:
        """Nothing of this run goes on."""
        for agent in self._agents.values():
            _end(agent)

    def _hire(self, place: str) -> tuple[Distant, Seen]:
        agent = self._library.agent(place, on_gpu=self._needs.on_gpu)
        return agent, look_at(agent, place, self._needs)

    def shares(self, machine: Machine, most: int) -> Sequence[Share]:
        self.meet()
        mine = [*self._agents][:most]
        crowds = Counter(self._seen[place].host for place in mine)
        return [self._share(place, machine, crowds[self._seen[place].host]) for place in mine]

    def _share(self, place: str, machine: Machine, crowd: int) -> Share:
        """Of a worker that shares its host with others: so many are there."""
        seen, memory = self._seen[place], machine.memory
        if memory is None and not self._needs.on_gpu:
            memory = seen.free // 2
        share = replace(
            machine,
            device=machine.device.partition(":")[0],
            processes=1,
            memory=None if memory is None else memory // crowd,
            workers=-(-machine.workers // crowd),
        )
        pinned = with_threads(self._threads[place]) if seen.gpu is None else {VISIBLE: seen.gpu}
        return Share(share, pinned, place)

    def serve(self, given: Sequence[Given]) -> AbstractContextManager[Iterator[Any]]:
        return served(self._agents, given)


@contextmanager
def served(agents: dict[str, Distant], given: Sequence[Given]) -> Iterator[Iterator[Any]]:
    """See ``Workers.serve``; agents that are gone are taken out."""
    words = SimpleQueue[Any]()
    with ThreadPoolExecutor(len(given)) as threads, ExitStack() as ending:
        for share, job in given:
            ending.callback(_end, agents[share.place])
            order = pickle.dumps(job)
            listening = threads.submit(_listen, agents, share, order, words)
            listening.add_done_callback(words.put)
        yield _all_say(words, len(given))


def _all_say(words: SimpleQueue[Any], listeners: int) -> Iterator[Any]:
    while listeners:
        said = words.get()
        if isinstance(said, Future):
            said.result()  # raises what a listener met
            listeners -= 1
        else:
            yield said


def _listen(
    agents: dict[str, Distant], share: Share, order: bytes, words: SimpleQueue[Any]
) -> None:
    """Put what one worker says, up to its end."""
    agent, place = agents[share.place], share.place
    try:
        agent.begin(SERVE, order, share.environment)
        is_working = True
        while is_working:
            for word in agent.hear():
                said = pickle.loads(word)
                if isinstance(said, Lost):
                    said = said._replace(fate=f"{place}: {said.fate}")
                words.put(said)
                if isinstance(said, Ended | Lost):
                    is_working = False
                    break
    except Gone as gone:
        agents.pop(place)
        words.put(Lost(f"{place}: {gone}", was_killed=True))


def _end(agent: Distant) -> None:
    with suppress(Gone):  # there is nothing to end
        agent.end()
