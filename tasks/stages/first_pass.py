"""Stage 1's one pass over the pictures, which its stages share: the image tokens that fusing needs
are in hand when a picture is encoded, and far too large to keep."""

import logging
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np

from cir_core.layers.preprocess import Preprocess
from cir_core.planning.effort import Effort, together
from cir_core.ports import Retriever
from cir_core.types import Precision
from storage.view import Viewed
from storage.views import KeptTokens
from tasks.feed.image_tokens import Pictures, Plan, Seen
from tasks.feed.token_cache import see_images
from tasks.machine import Machine
from tasks.models.opening import open_retriever
from tasks.progress import Counter, count
from tasks.shards import order_of, place_of, rows_in, slice_of
from tasks.stages.over_pictures import OverPictures
from tasks.stages.stage import Pass, ReadyPart, Work
from tasks.stages.tokens import find_kept, tokens_needed

_log = logging.getLogger(__name__)


class Looker(Protocol):
    """What a stage makes of the pictures of one shard, batch after batch."""

    @property
    def asked(self) -> int:
        """Questions that are to be answered, beside the pictures that are seen."""
        ...

    def look(self, seen: Seen, counter: Counter) -> Iterable[ReadyPart]:
        """The parts that are complete with this batch, in which pictures may be that only others
        want."""
        ...

    def close(self) -> Iterable[ReadyPart]:
        """The other parts, when all of the shard has been seen."""
        ...


class OpenStage(NamedTuple):
    """A stage that is ready: its name, how many questions it has in all, of each picture whether it
    ``wants`` to see it, and its looker for a shard, None where nothing of the shard is missing.

    What is wanted does not depend on what is missing: an interrupted pass goes on with the batches
    of an undisturbed one, and so with its bytes.
    """

    name: str
    questions: int
    wants: np.ndarray
    looker: Callable[[str], Looker | None]


@dataclass(frozen=True)
class PassStage(OverPictures[Viewed]):
    """A stage that the pass makes. ``model`` is the sha256 of the stage 1 in the ``folder``, which
    reads texts in the ``precision``. Raises as ``open_retriever`` for another model, and as
    ``feed_pixels``."""

    model: str
    pictures: Preprocess
    precision: Precision = field(default="fp32", kw_only=True)

    version = 5

    @abstractmethod
    def begin(self, model: Retriever, pictures: Pictures) -> OpenStage: ...

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), **self.pictures.settings()}

    def inputs(self) -> Mapping[str, str]:
        return {"images": self.ingested.digest("images"), "model": self.model}

    def needs(self, machine: Machine) -> Sequence[Pass]:
        return FirstPass((self,)).needs(machine)

    def open(self, machine: Machine) -> AbstractContextManager[Work]:
        return FirstPass((self,)).open(machine)

    def in_order(self, part: str) -> tuple[Any, ...]:
        """Kind after kind."""
        place = place_of(part)
        return place.kind, *order_of(place.shard), place.start


@dataclass(frozen=True)
class FirstPass:
    """Stages of the same pictures and model, made together; those that are whole are left out."""

    stages: tuple[PassStage[Any], ...]
    name = "encode"

    def needs(self, machine: Machine) -> Sequence[Pass]:
        return tokens_needed(self.stages[0], machine)

    def weights(self, shards: Sequence[str]) -> Sequence[float]:
        return self.stages[0].weights(shards)

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        first = self.stages[0]
        model = open_retriever(
            first.folder,
            sha256=first.model,
            encoder=first.encoder_precision,
            precision=first.precision,
        ).to(machine.device)
        pictures = Pictures(first.ingested, first.root, machine)
        kept = find_kept(pictures, model.encoder, first.folder)
        lacking = [stage for stage in self.stages if not stage.made.is_whole]
        begun = [stage.begin(model, pictures) for stage in lacking]
        yield partial(_look, model, pictures, kept, begun, _are_references(pictures))


def _look(
    model: Retriever,
    pictures: Pictures,
    kept: KeptTokens | None,
    begun: Sequence[OpenStage],
    are_references: np.ndarray,
    shards: Sequence[str],
) -> Iterator[ReadyPart]:
    """References are seen apart from other pictures, first: who asks anew of known pictures sees
    them alone, and together as if all were seen."""
    every = [{stage.name: stage.looker(shard) for stage in begun} for shard in shards]
    lookers_of = [{name: one for name, one in some.items() if one} for some in every]
    wants = np.any([stage.wants for stage in begun], axis=0)
    wanted = [
        _wanted(wants, shard) if lookers else np.arange(0)
        for lookers, shard in zip(lookers_of, shards, strict=True)
    ]
    plans = [_plan(pictures, rows, are_references) for rows in wanted]
    _tell_known(shards, wanted)
    left = sum(map(len, wanted))
    left += sum(looker.asked for lookers in lookers_of for looker in lookers.values())
    total = len(pictures.distinct) + sum(stage.questions for stage in begun)
    seeing = 0 if kept else model.config.seeing_flops()
    with (
        see_images(pictures, model.encoder, list(chain.from_iterable(plans)), kept) as images,
        count("encoding", total, "pictures and questions", done=total - left) as counter,
    ):
        spent = _Spent(seeing, None if kept is None else kept.fingerprint)
        for lookers, plan in zip(lookers_of, plans, strict=True):
            for seen in islice(images, len(plan)):
                counter.update(len(seen.rows) + len(seen.problems))
                spent.see(_first_of(begun, lookers, seen), seen)
                for name, looker in lookers.items():
                    yield from spent.by(name, looker.look(seen, counter))
            for name, looker in lookers.items():
                yield from spent.by(name, looker.close())


def _wanted(wants: np.ndarray, shard: str) -> np.ndarray:
    """The pictures of a shard that anybody has to see."""
    rows = rows_in(shard)
    return np.flatnonzero(wants[slice_of(rows)]) + rows.start


def _are_references(pictures: Pictures) -> np.ndarray:
    """Of each picture, whether a query starts from it."""
    asked = pictures.distinct.of(
        pictures.ingested.read("queries", ["reference_id"])["reference_id"]
    )
    found = np.zeros(len(pictures.distinct), dtype=bool)
    found[asked[asked >= 0]] = True
    return found


def _plan(pictures: Pictures, rows: np.ndarray, are_references: np.ndarray) -> Plan:
    is_reference = are_references[rows]
    apart = (rows[is_reference], rows[~is_reference])
    return [batch for some in apart for batch in pictures.plan(some.tolist())]


def _first_of(begun: Sequence[OpenStage], lookers: Mapping[str, Looker], seen: Seen) -> str:
    """Who wants any of a batch, of those that lack something of its shard."""
    rows = [*seen.rows, *seen.problems]
    wanting = [one.name for one in begun if one.name in lookers and one.wants[rows].any()]
    return next(iter([*wanting, *lookers]))


def _tell_known(shards: Sequence[str], wanted: Sequence[np.ndarray]) -> None:
    every, left = sum(len(rows_in(shard)) for shard in shards), sum(map(len, wanted))
    if left < every:
        known = f"{every - left:,} of {every:,} pictures"
        _log.info("%s are not looked at again: what is asked of them is known", known)


class _Spent:
    """What each stage of a pass has spent, which its next part tells. Seeing pictures is the first
    stage's that has any use for them; what another makes of them is its own."""

    def __init__(self, seeing_flops: int, tokens: str | None) -> None:
        self._seeing_flops, self._tokens = seeing_flops, tokens
        self._last = perf_counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._images: defaultdict[str, int] = defaultdict(int)
        self._flops: defaultdict[str, int] = defaultdict(int)

    def see(self, stage: str, seen: Seen) -> None:
        """For a stage, pictures have been seen, or read."""
        self._images[stage] += len(seen.rows) + len(seen.problems)
        self._flops[stage] += self._seeing_flops * len(seen.rows)
        self._lap(stage)

    def by(self, stage: str, parts: Iterable[ReadyPart]) -> Iterator[ReadyPart]:
        """The stage's parts, while its time is taken, to commit them included."""
        for ready in parts:
            self._lap(stage)
            yield ready._replace(
                effort=together([ready.effort, self._untold(stage)]), tokens=self._tokens
            )
        self._lap(stage)

    def _lap(self, stage: str) -> None:
        last, self._last = self._last, perf_counter()
        self._seconds[stage] += self._last - last

    def _untold(self, stage: str) -> Effort:
        return Effort(
            images=self._images.pop(stage, 0),
            flops=self._flops.pop(stage, 0),
            seconds=self._seconds.pop(stage, 0.0),
        )
