"""Stages whose shards are pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.views import Ingested, Viewed
from tasks.feed.pictures import distinct_pictures
from tasks.machine import Machine
from tasks.shards import rows_in, shards_of
from tasks.stages.stage import Pass, Stage
from tasks.stages.tokens import tokens_of


@dataclass(frozen=True)
class OverPictures(Stage[Viewed]):
    """Of an ingested split, whose files are below ``root``; ``model`` is the sha256 of the model in
    the ``folder`` that sees them."""

    ingested: Ingested
    model: str
    folder: Path
    root: Path

    unit = "images"

    def shards(self) -> Sequence[str]:
        return shards_of(len(distinct_pictures(self.ingested.read("images"))))

    def size(self, shard: str) -> int:
        return len(rows_in(shard))

    def needs(self, machine: Machine) -> Sequence[Pass]:
        """Image tokens, if they are to be kept."""
        if machine.tokens != "cache":
            return ()
        return [tokens_of(self.ingested, self.folder, self.root, "fp32")]
