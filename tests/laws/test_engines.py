"""What holds whoever makes the shards: this process, or several."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from psutil import virtual_memory

from cir_core.errors import PreflightError, StoreCorrupt, UsageError, WorkerLost
from flows.engines.engine import InProcess
from flows.engines.processes import shares_of
from storage.catalog import query
from storage.sittings import sittings_of
from storage.store import LocalStore
from tasks.machine import Machine
from tasks.stages.chronicle import Committed
from tasks.stages.stage import Pass, make
from tests.support.processes import nobody_stays
from tests.support.small_benchmarks import Bench
from tests.support.toy_stage import BROKEN, REFUSED, Squares

ENGINES = {"here": Machine(processes=1), "two processes": Machine(processes=2)}

starts_processes = pytest.mark.slow  # each imports torch
engines = pytest.mark.parametrize(
    "machine",
    [
        pytest.param(machine, id=name, marks=starts_processes if machine.processes > 1 else ())
        for name, machine in ENGINES.items()
    ],
)


@pytest.fixture
def squares(tmp_path: Path) -> Callable[..., Squares]:
    folder = tmp_path / "deaths"
    folder.mkdir()

    def build(**changes: object) -> Squares:
        return Squares(LocalStore(tmp_path / "store"), folder, **changes)  # type: ignore[arg-type]

    return build


def made(stage: Squares, machine: Machine) -> list[float]:
    make(stage, machine, InProcess().each)
    scores: list[float] = stage.made.read("scores")["stage2_score"].to_pylist()
    return scores


@engines
def test_every_shard_is_made_once_and_told_and_nobody_stays(
    squares: Callable[..., Squares],
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), nobody_stays():
        assert made(squares(), machine) == [number**2 for number in range(8)]
    assert "squaring: 8 of 8 numbers" in caplog.text
    (one,) = sittings_of(squares().made)
    assert (one.parts, one.pairs, one.flops, one.processes) == (8, 8, 80, machine.processes)
    assert one.is_first
    assert one.is_ended
    assert one.seconds > 0
    least = 50 * 2**20 * machine.processes  # each process has imported torch
    assert least < one.peak_memory < virtual_memory().total


@engines
def test_what_is_there_is_not_made_again(squares: Callable[..., Squares], machine: Machine) -> None:
    stage = squares()
    made(stage, ENGINES["here"])
    (lost, *others) = sorted(stage.made.folder.glob("*.parquet"))
    lost.unlink()
    before = {path: path.stat().st_ino for path in others}
    assert made(stage, machine) == [number**2 for number in range(8)]
    assert {path: path.stat().st_ino for path in others} == before


@engines
def test_an_error_is_the_same_and_ends_all_work(
    squares: Callable[..., Squares], machine: Machine
) -> None:
    with nobody_stays(), pytest.raises(PreflightError, match="no") as caught:
        made(squares(ends=(REFUSED,)), machine)
    assert caught.value.item == REFUSED
    assert made(squares(), machine) == [number**2 for number in range(8)]


@starts_processes
def test_nothing_is_finished_that_was_not_made(squares: Callable[..., Squares]) -> None:
    stage = squares()

    def idle(one_pass: Pass, shards: Sequence[str], machine: Machine) -> Iterable[Committed]:
        return iter(())

    with pytest.raises(StoreCorrupt, match="8 shards of a stage are not made"):
        make(stage, Machine(), idle)
    assert not stage.made.is_whole


def test_the_shards_of_a_killed_worker_are_given_out_again(
    squares: Callable[..., Squares], caplog: pytest.LogCaptureFixture
) -> None:
    assert made(squares(deaths=1), Machine(processes=2)) == [number**2 for number in range(8)]
    assert "1 of 2 workers have died: signal 9" in caplog.text
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
    parts = sorted((tmp_path / "1" / "artifacts").glob("*/*/*.parquet"))
    assert len([part for part in parts if part.match("rerank/*/*")]) == 3
    for part in parts:
        made = tmp_path / "2" / part.relative_to(tmp_path / "1")
        assert made.read_bytes() == part.read_bytes(), part
    counted = "SELECT stage, images, queries, pairs, recorded FROM costs ORDER BY ALL"
    one, two = (query(tmp_path / name / "cir.duckdb", counted)[1] for name in "12")
    assert one == two
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
