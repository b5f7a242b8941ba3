"""Stages whose shards are pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cir_core.types import Precision
from storage.view import Viewed
from storage.views import Ingested
from tasks.feed.pictures import distinct_pictures
from tasks.shards import rows_in, shards_of
from tasks.stages.stage import Stage


@dataclass(frozen=True)
class OverPictures(Stage[Viewed]):
    """Of an ingested split, whose files are below ``root``, seen by the model in the ``folder``, in
    the ``encoder_precision``; a name tells only another than fp32."""

    ingested: Ingested
    folder: Path
    root: Path
    encoder_precision: Precision = field(default="fp32", kw_only=True)

    unit = "images"

    def settings(self) -> Mapping[str, Any]:
        precision = self.encoder_precision
        return {} if precision == "fp32" else {"encoder_precision": precision}

    def shards(self) -> Sequence[str]:
        return self._shards

    def size(self, shard: str) -> int:
        return len(rows_in(shard))

    @cached_property
    def _shards(self) -> Sequence[str]:
        """Asked for several times, and told by the whole table of images, which never changes."""
        return shards_of(len(distinct_pictures(self.ingested.read("images"))))
