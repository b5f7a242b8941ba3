"""A stage, declared: what names it, what it holds, its shards, its work. Making it, going on with
what an interrupted run left, planning it and tracing it follow from that."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar, Generic, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch

from cir_core.errors import StoreCorrupt
from cir_core.memory import forget_peaks
from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Widths
from storage.identities import Identity
from storage.store import Store
from storage.view import View, Viewed
from tasks.machine import Machine
from tasks.shards import WHOLE, order_of, place_of, shares_left
from tasks.stages.chronicle import Chronicle, Committed, Peak


class ReadyPart(NamedTuple):
    """A part that is ready to be committed to an artifact; ``effort``, ``tokens`` and ``copied`` as
    ``Committed``: what is in the part, not what else was done for it."""

    view: View
    part: str
    content: pa.Table | np.ndarray
    effort: Effort = Effort()
    tokens: str | None = None
    copied: int = 0


Work = Callable[[Sequence[str]], Iterator[ReadyPart]]
"""The missing parts of some shards, shard after shard, each as soon as it is complete. It gets all
that its worker is to do at once, so that pictures are decoded ahead across shards."""


class Pass(Protocol):
    """Stages that are made together, over the same shards; a single one is the usual case."""

    @property
    def name(self) -> str: ...

    @property
    def stages(self) -> "Sequence[Stage[Any]]": ...

    def needs(self, machine: Machine) -> "Sequence[Pass]":
        """What is to be made first, once it is known that something is missing."""
        ...

    def weights(self, shards: Sequence[str]) -> Sequence[float]:
        """How much work each shard is, beside the others."""
        ...

    def open(self, machine: Machine) -> AbstractContextManager[Work]:
        """What a worker has ready while it works: models, tables."""
        ...


@dataclass(frozen=True)
class Stage(ABC, Generic[Viewed]):
    """One artifact, there already or to be made. Fields are what it is made of, and where that
    lies; only ``settings`` and ``inputs`` name it."""

    store: Store

    makes: ClassVar[type[Any]]
    """``Viewed``: the reference to what is made, which has the stage's name and parts."""

    version: ClassVar[int]
    """Raised when the work computes something else."""

    unit: ClassVar[str] = "shards"
    """What ``size`` counts."""

    seconds_per_pair: ClassVar[float] = 0.0
    """Tables in and out, beside what ``effort`` measures (docs/performance.md)."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What changes the result, by name."""

    @abstractmethod
    def inputs(self) -> Mapping[str, str]:
        """The fingerprint of each artifact that it is made of, by its stage, and other digests."""

    def shards(self) -> Sequence[str]:
        """Names of what is worked on apart. Reads the inputs, which must be whole."""
        return (WHOLE,)

    def size(self, shard: str) -> int:
        """How much of the stage is in a shard."""
        return 1

    def needs(self, machine: Machine) -> Sequence[Pass]:
        """See ``Pass``."""
        return ()

    def weights(self, shards: Sequence[str]) -> Sequence[float]:
        """See ``Pass``."""
        return [self.size(shard) for shard in shards]

    def open(self, machine: Machine) -> AbstractContextManager[Work]:
        """See ``Pass``."""
        return nullcontext(self.work)

    def work(self, shards: Sequence[str]) -> Iterator[ReadyPart]:
        """The ``Work`` of a stage for which nothing need be opened."""
        raise NotImplementedError

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        """What is left to do of it, and its time; ``seconds_per_pair`` and disk come on top. By
        itself, a row for each candidate."""
        return forecast.tables()

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """The bytes that it adds to a store; of some rows a category, none are counted."""
        return 0

    @property
    def name(self) -> str:
        return str(self.makes.stage)

    @property
    def stages(self) -> "Sequence[Stage[Any]]":
        return (self,)

    @property
    def identity(self) -> Identity:
        return Identity(self.name, self.version, self.settings(), self.inputs())

    @property
    def made(self) -> Viewed:
        """The artifact, whether or not it is there."""
        made: Viewed = self.makes.named(self.store, self.identity)
        return made

    def left(self) -> dict[str, float]:
        """The shards that an interrupted run has left, and how much of each; whether the artifact
        is done is asked before."""
        view = self.made
        committed = [name for name in view.begun() if view.has_part(name)]
        return shares_left(committed, self.shards(), view.holds)

    def in_order(self, part: str) -> tuple[Any, ...]:
        """To sort parts by, for the manifest: shard after shard."""
        place = place_of(part)
        return *order_of(place.shard), list(self.makes.holds).index(place.kind), place.start

    def finish(self) -> None:
        """Write the manifest over the parts of all shards. Raises StoreCorrupt when one is not
        committed."""
        view, shards, names = self.made, self.shards(), self.made.begun()
        left = shares_left(names, shards, view.holds)
        if left:
            raise StoreCorrupt(
                f"{len(left)} shards of a stage are not made, though its work has ended",
                item=str(view),
                cause=f"{min(left)} is the first; files were removed meanwhile, or this is a bug",
                remedy="run the same command again: what is there is kept",
            )
        known = {(kind, shard) for kind in view.holds for shard in shards}
        mine = [name for name in names if place_of(name)[:2] in known]
        view.finish(self.identity, sorted(mine, key=self.in_order))


Each = Callable[[Pass, Sequence[str], Machine], Iterable[Committed]]
"""Has the shards of a pass made, by whomever; tells each part once it is committed."""


class Missing(NamedTuple):
    """Of a pass: the stages whose artifacts are not done, each with the shards that it has left and
    how much of each; and all these shards, in order."""

    stages: "Sequence[tuple[Stage[Any], Mapping[str, float]]]"
    shards: Sequence[str]


def missing_of(one_pass: Pass) -> Missing:
    """What there is to do. Hashes all that is there, and repairs as ``Artifact.is_done``."""
    stages = [(stage, stage.left()) for stage in one_pass.stages if not stage.made.is_done]
    left = {shard for _, some in stages for shard in some}
    shards = [shard for shard in one_pass.stages[0].shards() if shard in left] if left else []
    return Missing(stages, shards)


def make(
    one_pass: Pass,
    machine: Machine,
    each: Each,
    *,
    since: float | None = None,
    missing: Missing | None = None,
) -> tuple[str, ...]:
    """Make what is missing, which is found out here unless it was just now, and record what that
    takes, ``since`` its work began where that was before (by ``perf_counter``); the names of the
    stages that had anything to do."""
    lacking, shards = missing or missing_of(one_pass)
    if shards:
        for needed in one_pass.needs(machine):
            make(needed, machine, each)
        views = {stage.made: _is_all(some, stage.shards()) for stage, some in lacking if some}
        began = perf_counter() if since is None else since
        with Chronicle(views, machine, min(machine.processes, len(shards)), began) as chronicle:
            for done in each(one_pass, shards, machine):
                chronicle.note(done)
    for stage, _ in lacking:
        stage.finish()
    return tuple(stage.name for stage, _ in lacking)


def _is_all(left: Mapping[str, float], shards: Sequence[str]) -> bool:
    """Whether nothing is there."""
    return len(left) == len(shards) and all(share == 1 for share in left.values())


def make_here(one_pass: Pass, shards: Sequence[str], machine: Machine) -> Iterator[Committed]:
    """An ``Each``: in this process."""
    device = torch.device(machine.device)
    forget_peaks(device)
    with one_pass.open(machine) as work:
        for view, part, content, effort, tokens, copied in work(shards):
            view.write(part, content)
            yield Committed(view.stage, part, effort, Peak.of(device), tokens, copied)
