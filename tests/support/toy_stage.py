"""A stage of numbers, for those who make stages: no model, no picture, and faults on demand."""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cir_core.errors import PreflightError
from cir_core.planning.effort import Effort
from storage import schemas
from storage.views import Scored
from tasks.progress import count
from tasks.shards import part_name
from tasks.stages.stage import ReadyPart, Stage

FATAL, REFUSED, BROKEN = "3", "4", "5"
"""Shards at which a worker may be killed, refuse what it is given, or meet a bug."""


@dataclass(frozen=True)
class Squares(Stage[Scored]):
    """A part scores-<number> for each number: its square. ``deaths`` workers are killed at FATAL,
    which files in ``folder`` count, or who has started them (``kills_parent``); ``ends`` are the
    shards at which work ends otherwise."""

    folder: Path
    numbers: int = 8
    deaths: int = 0
    kills_parent: bool = False
    ends: tuple[str, ...] = ()

    makes = Scored
    version = 1

    def settings(self) -> Mapping[str, Any]:
        return {"numbers": self.numbers}

    def inputs(self) -> Mapping[str, str]:
        return {}

    def shards(self) -> Sequence[str]:
        return [str(number) for number in range(self.numbers)]

    def work(self, shards: Sequence[str]) -> Iterator[ReadyPart]:
        done = self.numbers - len(shards)
        with count("squaring", self.numbers, "numbers", done=done) as counter:
            for shard in shards:
                self._meet_fate(shard)
                row = {"query_id": shard, "image_id": "i", "stage2_score": float(shard) ** 2}
                table = pa.Table.from_pylist([row], schemas.SCORES)
                effort = Effort(pairs=1, flops=10)
                yield ReadyPart(self.made, part_name("scores", shard), table, effort)
                counter.update(1)

    def _meet_fate(self, shard: str) -> None:
        if shard == FATAL and len(list(self.folder.iterdir())) < self.deaths:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getppid() if self.kills_parent else os.getpid(), signal.SIGKILL)
            time.sleep(60)  # a worker ends with its parent
        if shard in self.ends and shard == REFUSED:
            raise PreflightError("no", item=shard)
        if shard in self.ends and shard == BROKEN:
            raise RuntimeError("a bug")
