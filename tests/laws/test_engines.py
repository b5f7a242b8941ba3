"""What holds whoever makes the shards: this process, or several."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from psutil import virtual_memory

from cir_core.errors import PreflightError, StoreCorrupt, UsageError, WorkerLost
from flows.engines.engine import InProcess
from flows.engines.processes import shares_of
from flows.engines.runners import Opening, elsewhere, here
from flows.engines.scouting import Needs
from storage.catalog import query
from storage.sittings import sittings_of
from storage.store import LocalStore
from tasks.machine import Machine
from tasks.stages.chronicle import Committed
from tasks.stages.stage import Pass, make
from tests.support.clusters import dask_cluster
from tests.support.processes import nobody_stays
from tests.support.small_benchmarks import Bench
from tests.support.toy_stage import BROKEN, REFUSED, Squares

ALONE, TWO = Machine(processes=1), Machine(processes=2)

starts_processes = pytest.mark.slow  # each imports torch
ENGINES = [
    pytest.param(ALONE, None, id="here"),
    pytest.param(TWO, None, id="two processes", marks=starts_processes),
]
DASK = pytest.param(TWO, partial(here, "dask", 2), id="dask", marks=starts_processes)
engines = pytest.mark.parametrize(("machine", "workers"), ENGINES)
engines_and_dask = pytest.mark.parametrize(("machine", "workers"), [*ENGINES, DASK])
Opens = Callable[[], Opening] | None


@pytest.fixture
def squares(tmp_path: Path) -> Callable[..., Squares]:
    folder = tmp_path / "deaths"
    folder.mkdir()

    def build(**changes: object) -> Squares:
        return Squares(LocalStore(tmp_path / "store"), folder, **changes)  # type: ignore[arg-type]

    return build


def made(stage: Squares, machine: Machine, workers: Opens = None) -> list[float]:
    engine = InProcess()
    with engine.with_workers(workers()) if workers else nullcontext():
        engine.make(stage, machine)
    scores: list[float] = stage.made.read("scores")["stage2_score"].to_pylist()
    return scores


@engines_and_dask
def test_every_shard_is_made_once_and_told_and_nobody_stays(
    squares: Callable[..., Squares],
    machine: Machine,
    workers: Opens,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), nobody_stays():
        assert made(squares(), machine, workers) == [number**2 for number in range(8)]
    assert "squaring: 8 of 8 numbers" in caplog.text
    (one,) = sittings_of(squares().made)
    assert (one.parts, one.pairs, one.flops, one.processes) == (8, 8, 80, machine.processes)
    assert one.is_first
    assert one.is_ended
    assert one.seconds > 0
    least = 50 * 2**20 * machine.processes  # each process has imported torch
    assert least < one.peak_memory < virtual_memory().total


@engines
def test_what_is_there_is_not_made_again(
    squares: Callable[..., Squares], machine: Machine, workers: Opens
) -> None:
    stage = squares()
    made(stage, ALONE)
    (lost, *others) = sorted(stage.made.folder.glob("*.parquet"))
    lost.unlink()
    before = {path: path.stat().st_ino for path in others}
    assert made(stage, machine, workers) == [number**2 for number in range(8)]
    assert {path: path.stat().st_ino for path in others} == before


@engines
def test_an_error_is_the_same_and_ends_all_work(
    squares: Callable[..., Squares], machine: Machine, workers: Opens
) -> None:
    with nobody_stays(), pytest.raises(PreflightError, match="no") as caught:
        made(squares(ends=(REFUSED,)), machine, workers)
    assert caught.value.item == REFUSED
    assert made(squares(), ALONE) == [number**2 for number in range(8)]


@starts_processes
def test_nothing_is_finished_that_was_not_made(squares: Callable[..., Squares]) -> None:
    stage = squares()

    def idle(one_pass: Pass, shards: Sequence[str], machine: Machine) -> Iterable[Committed]:
        return iter(())

    with pytest.raises(StoreCorrupt, match="8 shards of a stage are not made"):
        make(stage, Machine(), idle)
    assert not stage.made.is_whole


@pytest.mark.parametrize(
    "workers",
    [
        None,
        pytest.param(partial(here, "ray", 2), id="ray", marks=starts_processes),
    ],
)
def test_the_shards_of_a_killed_worker_are_given_out_again(
    squares: Callable[..., Squares], workers: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    with nobody_stays():
        assert made(squares(deaths=1), TWO, workers) == [number**2 for number in range(8)]
    assert re.search("1 of 2 workers have died: (.*: )?signal 9", caplog.text)
    (one,) = sittings_of(squares().made)
    assert (one.parts, one.is_ended) == (8, True)


@starts_processes
def test_workers_that_always_die_are_given_up(
    squares: Callable[..., Squares], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engines.sharing.ROUNDS", 2)
    stage = squares(deaths=99)
    with nobody_stays(), pytest.raises(WorkerLost, match="again and again"):
        made(stage, Machine(processes=2))
    assert len(list(stage.folder.iterdir())) == 2
    assert set(stage.left()) <= {"3", "5", "7"}, "what others made stays"


@starts_processes
def test_the_shards_of_a_machine_that_is_gone_are_given_to_the_others(
    squares: Callable[..., Squares], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = squares(deaths=1, kills_parent=True)
    needs = Needs(stage.store, (), on_gpu=False)
    with nobody_stays(), dask_cluster(tmp_path) as address:
        workers = partial(elsewhere, "dask", address, needs, None)
        assert made(stage, ALONE, workers) == [number**2 for number in range(8)]
    assert "1 of 2 workers have died: tcp://127.0.0.1:" in caplog.text
    (one,) = sittings_of(stage.made)
    assert (one.processes, one.is_ended) == (2, True)
    assert not [name for name in stage.store.names("locks") if name.startswith("seen")]


@starts_processes
def test_a_bug_in_a_worker_is_not_tried_again(
    squares: Callable[..., Squares], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkerLost, match="has failed") as caught:
        made(squares(ends=(BROKEN,)), Machine(processes=2))
    assert "exit code 1" in caught.value.cause
    assert capfd.readouterr().err.count("RuntimeError: a bug") == 1


@starts_processes
def test_a_run_has_the_same_bytes(
    fiq: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.shards.PICTURES", 10)
    fiq.run(tmp_path / "1")
    fiq.run(tmp_path / "2", device="auto", devices="cpu,cpu")
    with dask_cluster(tmp_path) as address:
        fiq.run(tmp_path / "3", runner="dask", address=address)
    parts = sorted((tmp_path / "1" / "artifacts").glob("*/*/*.parquet"))
    assert len([part for part in parts if part.match("rerank/*/*")]) == 3
    for part, other in product(parts, "23"):
        made = tmp_path / other / part.relative_to(tmp_path / "1")
        assert made.read_bytes() == part.read_bytes(), made
    counted = "SELECT stage, images, queries, pairs, recorded FROM costs ORDER BY ALL"
    one, two, three = (query(tmp_path / name / "cir.duckdb", counted)[1] for name in "123")
    assert one == two == three
    assert {row[-1] for row in one} == {1.0}


# --- shares


def test_shares_are_equal_and_no_more_than_there_is() -> None:
    machine = Machine(workers=3, memory=1000, processes=2)
    first, second = shares_of(machine, 2)
    assert first == second
    assert first.machine == Machine(workers=2, memory=500, processes=1)
    assert int(first.environment["OMP_NUM_THREADS"]) >= 1
    (one, _) = shares_of(Machine(processes=2), 2)
    assert one.machine.memory is not None, "two halves of what is free would be all of it"


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [("4,7", "cuda", ["4", "7"]), ("4", "cuda", None), ("4,7", "cuda:1", None)],
)
def test_each_process_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, visible: str, device: str, expected: list[str] | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    machine = Machine(device=device, processes=2)
    if expected is None:
        with pytest.raises(UsageError, match="2 processes cannot share"):
            shares_of(machine, 2)
    else:
        named = Machine(device="cuda:1", processes=2, devices=("cuda:1", "cuda:0"))
        for one, order in ((machine, expected), (named, expected[::-1])):
            shares = shares_of(one, 2)
            assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares] == order
            assert {share.machine for share in shares} == {Machine(device="cuda")}
