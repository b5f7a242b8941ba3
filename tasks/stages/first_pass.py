"""Stage 1's one pass over the pictures, which its stages share: the image tokens that fusing needs
are in hand when a picture is encoded, and far too large to keep."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

from cir_core.layers.preprocess import Preprocess
from cir_core.ports import Retriever
from storage.views import KeptTokens, Viewed
from tasks.feed.image_tokens import Pictures, Seen
from tasks.feed.token_cache import see_images
from tasks.machine import Machine
from tasks.models.opening import open_retriever
from tasks.progress import Counter, count
from tasks.shards import rows_in
from tasks.stages.over_pictures import OverPictures
from tasks.stages.stage import Pass, ReadyPart, Work
from tasks.stages.tokens import find_kept, tokens_needed


class Looker(Protocol):
    """What a stage makes of the pictures of one shard, batch after batch."""

    @property
    def asked(self) -> int:
        """Questions that are to be answered, beside the pictures that are seen."""
        ...

    def look(self, seen: Seen, counter: Counter) -> Iterable[ReadyPart]:
        """The parts that are complete with this batch."""
        ...

    def close(self) -> Iterable[ReadyPart]:
        """The other parts, when all of the shard has been seen."""
        ...


class OpenStage(NamedTuple):
    """A stage that is ready: how many questions it has in all, and its looker for a shard, None
    where nothing of the shard is missing."""

    questions: int
    looker: Callable[[str], Looker | None]


@dataclass(frozen=True)
class PassStage(OverPictures[Viewed]):
    """A stage that the pass makes. ``model`` is the sha256 of the stage 1 in the ``folder``. Raises
    as ``open_retriever`` for another model, and as ``feed_pixels``."""

    model: str
    pictures: Preprocess

    version = 5

    @abstractmethod
    def begin(self, model: Retriever, pictures: Pictures) -> OpenStage: ...

    def settings(self) -> Mapping[str, Any]:
        return self.pictures.settings()

    def inputs(self) -> Mapping[str, str]:
        return {"images": self.ingested.digest("images"), "model": self.model}

    def needs(self, machine: Machine) -> Sequence[Pass]:
        return FirstPass((self,)).needs(machine)

    def open(self, machine: Machine) -> AbstractContextManager[Work]:
        return FirstPass((self,)).open(machine)

    def in_order(self, part: str) -> tuple[str, int, int]:
        """Kind after kind."""
        return part, 0, 0


@dataclass(frozen=True)
class FirstPass:
    """Stages of the same pictures and model, made together; those that are whole are left out."""

    stages: tuple[PassStage[Any], ...]
    name = "encode"

    def needs(self, machine: Machine) -> Sequence[Pass]:
        return tokens_needed(self.stages[0], machine)

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        first = self.stages[0]
        model = open_retriever(first.folder, sha256=first.model).to(machine.device)
        pictures = Pictures(first.ingested, first.root, machine)
        kept = find_kept(pictures, model.encoder, first.folder)
        lacking = [stage for stage in self.stages if not stage.made.is_whole]
        begun = [stage.begin(model, pictures) for stage in lacking]
        yield partial(_look, model, pictures, kept, begun)


def _look(
    model: Retriever,
    pictures: Pictures,
    kept: KeptTokens | None,
    begun: Sequence[OpenStage],
    shards: Sequence[str],
) -> Iterator[ReadyPart]:
    plans = [pictures.plan(rows_in(shard)) for shard in shards]
    every = [[one for stage in begun if (one := stage.looker(shard))] for shard in shards]
    left = sum(len(rows_in(shard)) for shard in shards)
    left += sum(looker.asked for lookers in every for looker in lookers)
    total = len(pictures.distinct) + sum(stage.questions for stage in begun)
    with (
        see_images(pictures, model.encoder, list(chain.from_iterable(plans)), kept) as images,
        count("encoding", total, "pictures and questions", done=total - left) as counter,
    ):
        for lookers, plan in zip(every, plans, strict=True):
            for seen in islice(images, len(plan)):
                counter.update(len(seen.rows) + len(seen.problems))
                for looker in lookers:
                    yield from looker.look(seen, counter)
            for looker in lookers:
                yield from looker.close()
