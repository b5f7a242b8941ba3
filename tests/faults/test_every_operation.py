"""Any operation of a store may fail: the same command finishes, and nothing is lost or changed.

The suite takes a few of them by chance, always the same; `make faults` takes each, in a run of its
own.
"""

import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cir_core.errors import OutOfSpace, PreflightError, StoreCorrupt, StoreFailing
from flows.settings import Settings
from storage.object_store import ObjectStore
from storage.objects import Objects
from storage.store import open_store
from tests.support.buckets import url_of
from tests.support.forked_runs import ForkedRun, forking
from tests.support.small_benchmarks import Bench
from tests.support.store_contents import contents

pytestmark = pytest.mark.usefixtures("s3")

COUNT = "tests.support.failing_operation:count_operations"
FAIL = "tests.support.failing_operation:fail_at"

KINDS = {"a folder": ("full", "io", "kill"), "a bucket": ("io", "kill", "killed after")}

TOLD = {
    0,  # it did without
    -signal.SIGKILL,
    *(kind.exit_code for kind in (OutOfSpace, PreflightError, StoreCorrupt, StoreFailing)),
}
"""How a run may end. Not as by a bug."""

FEW = 6
"""Failures in a row that the suite takes."""


@pytest.fixture
def small(fiq: Bench) -> Bench:
    return replace(fiq, categories=fiq.categories[:1])


@pytest.fixture
def forked(s3: None, tmp_path: Path) -> Iterator[ForkedRun]:
    with forking(tmp_path / "log") as run:
        yield run


class Place:
    """Where a run's store is, and which folder of this machine its operations are in."""

    def __init__(self, kind: str, bench: Bench, folder: Path) -> None:
        self._bench, self._in_bucket, self._folder = bench, kind == "a bucket", folder

    def settings(self, name: str) -> Settings:
        path = self._folder / name
        return self._bench.settings(Path(url_of(path)) if self._in_bucket else path)

    def folder(self, name: str) -> str:
        store = open_store(self.settings(name).store)
        return str(store.copies if isinstance(store, ObjectStore) else self._folder / name)

    def contents(self, name: str) -> dict[str, Any]:
        return contents(open_store(self.settings(name).store))

    def remove(self, name: str) -> None:
        """Thousands would fill the disk, and the memory of the server."""
        shutil.rmtree(self.folder(name), ignore_errors=True)
        if self._in_bucket:
            objects = Objects(url_of(self._folder / name))
            for one in objects.below(""):
                objects.remove(one)


@dataclass(frozen=True)
class Trial:
    """Runs in stores of one kind, and what an undisturbed one leaves."""

    place: Place
    forked: ForkedRun
    log: Path
    operations: int
    expected: dict[str, Any]

    def fail(self, name: str, number: int, kind: str) -> str:
        """Nothing, or how a run ended that should not end so."""
        ended = self._run(name, FAIL, number, kind)
        if ended in TOLD:
            return ""
        return f"operation {number} ({kind}): {ended}\n{self.log.read_text()[-3000:]}"

    def finish(self, name: str) -> str:
        """Nothing, or how the store differs from an undisturbed one."""
        ended = self._run(name, COUNT, str(self.log.with_name("count")))
        if ended:
            return f"{name}: the same command ends with {ended}\n{self.log.read_text()[-3000:]}"
        return "" if self.place.contents(name) == self.expected else f"{name}: others"

    def _run(self, name: str, fault: str, *arguments: Any) -> int:
        return self.forked(self.place.settings(name), fault, self.place.folder(name), *arguments)


@pytest.fixture(params=KINDS)
def trial(request: pytest.FixtureRequest, small: Bench, forked: ForkedRun, tmp_path: Path) -> Trial:
    place, count = Place(request.param, small, tmp_path), tmp_path / "count"
    assert forked(place.settings("calm"), COUNT, place.folder("calm"), str(count)) == 0
    operations = int(count.read_text())
    return Trial(place, forked, tmp_path / "log", operations, place.contents("calm"))


def test_failures_change_nothing_and_the_same_command_finishes(
    trial: Trial, request: pytest.FixtureRequest
) -> None:
    kinds, step = KINDS[request.node.callspec.params["trial"]], request.config.option.fail_each
    faults = [*(_each(trial, kinds, step) if step else _some(trial, kinds))]
    assert not any(faults), "\n".join(filter(None, faults))


def _some(trial: Trial, kinds: Sequence[str]) -> Iterator[str]:
    """One after the other in one store, in which ever more is there already."""
    chance = random.Random(0)
    for turn in range(FEW):
        number = chance.randrange(1, trial.operations // (turn + 1))
        yield trial.fail("store", number, kinds[turn % len(kinds)])
    yield trial.finish("store")


def _each(trial: Trial, kinds: Sequence[str], step: int) -> Iterator[str]:
    for number in range(1, trial.operations + 1, step):
        for kind in kinds:
            name = f"{number}-{kind}"
            yield trial.fail(name, number, kind)
            yield trial.finish(name)
            trial.place.remove(name)
