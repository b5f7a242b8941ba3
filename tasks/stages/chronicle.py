"""What the making of stages takes, recorded while it goes on."""

import logging
import os
import platform
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import NamedTuple, Self

import torch

from cir_core.errors import CirError
from cir_core.memory import recent_peak
from cir_core.planning.effort import Effort, together
from storage.manifests import versions
from storage.sittings import Sitting, record
from storage.view import View
from tasks.child import peak_of_children
from tasks.machine import Machine

SECONDS_BETWEEN_RECORDS = 10.0
"""What of a killed sitting goes unrecorded at most, beside the part in flight. A record takes some
milliseconds."""

CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


class Peak(NamedTuple):
    """The most memory that a process and its helpers have held: resident bytes, and allocated
    ones on a GPU."""

    process: int
    memory: int
    gpu: int | None

    @classmethod
    def of(cls, device: torch.device) -> Self:
        """Of this process, since ``forget_peaks``."""
        gpu = recent_peak(device) if device.type == "cuda" else None
        return cls(os.getpid(), recent_peak(CPU) + peak_of_children(), gpu)


class Committed(NamedTuple):
    """A part of a stage is in the store: what was done for it, and how much memory its process has
    held so far. The seconds of an effort are what is known to be the stage's own, in a pass."""

    stage: str
    part: str
    effort: Effort
    peak: Peak
    tokens: str | None = None
    """The fingerprint of kept image tokens that it was made of."""
    copied: int = 0
    """What of it earlier artifacts had, in what the stage counts: images, queries or pairs."""


@dataclass
class Chronicle:
    """Of some artifacts that are made together; of each, whether nothing of it was there. While it
    is open, each committed part is noted. Failing to record fails nothing else: a warning tells."""

    views: Mapping[View, bool]
    machine: Machine
    processes: int
    began: float = field(default_factory=perf_counter)
    """As ``perf_counter`` tells it."""

    def __post_init__(self) -> None:
        since = timedelta(seconds=perf_counter() - self.began)
        self._began_at = (datetime.now(UTC) - since).isoformat()
        self._written = perf_counter()
        self._efforts = {view.stage: Effort() for view in self.views}
        self._parts, self._copied = Counter[str](), Counter[str]()
        self._peaks = dict[int, Peak]()
        self._tokens = dict[str, str | None]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None or self._parts:
            self._record(is_ended=kind is None)

    def note(self, done: Committed) -> None:
        """A part of one of the stages."""
        self._efforts[done.stage] = together([self._efforts[done.stage], done.effort])
        self._parts[done.stage] += 1
        self._copied[done.stage] += done.copied
        self._peaks[done.peak.process] = done.peak
        self._tokens[done.stage] = done.tokens
        if perf_counter() - self._written > SECONDS_BETWEEN_RECORDS:
            self._record(is_ended=False)

    def _record(self, *, is_ended: bool) -> None:
        wall = perf_counter() - self.began
        try:
            for view in self.views:
                record(view, self._sitting(view, wall, is_ended=is_ended))
        except (CirError, OSError) as error:
            told = error.in_a_line if isinstance(error, CirError) else error
            _log.warning("what this stage takes is not recorded: %s", told)
        self._written = perf_counter()

    def _sitting(self, view: View, wall: float, *, is_ended: bool) -> Sitting:
        mine = self._efforts[view.stage]
        own = sum(one.seconds for one in self._efforts.values())
        share = mine.seconds / own if len(self.views) > 1 and own else 1.0
        gpu = [peak.gpu for peak in self._peaks.values() if peak.gpu is not None]
        return Sitting(
            began_at=self._began_at,
            is_first=self.views[view],
            is_ended=is_ended,
            seconds=wall * share,
            together=tuple(self._efforts),
            images=mine.images,
            queries=mine.queries,
            pairs=mine.pairs,
            flops=mine.flops,
            parts=self._parts[view.stage],
            copied=self._copied[view.stage],
            peak_memory=self._peak_memory(),
            peak_gpu_memory=max(gpu, default=None),
            device=_name_of(self.machine.device),
            processor=_processor(),
            cores=os.cpu_count() or 1,
            threads=max(1, torch.get_num_threads() // self.processes),
            processes=self.processes,
            workers=self.machine.workers,
            batch=self.machine.batch,
            tokens=self._tokens.get(view.stage),
            made_with=versions(),
        )

    def _peak_memory(self) -> int:
        """Of all that worked, and of this process, which may only have waited for them."""
        here = 0 if os.getpid() in self._peaks else recent_peak(CPU)
        return here + sum(peak.memory for peak in self._peaks.values())


def _name_of(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


@cache
def _processor() -> str:
    """Its name as the system tells it, which Linux does in a file alone."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
