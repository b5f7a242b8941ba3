"""The same composition under Prefect: a real (temporary) server, few runs."""

import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import StateType, TaskRun
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.events.worker import EventsWorker
from prefect.testing.utilities import prefect_test_harness

from cir_core.errors import PreflightError, ProblemsFound, WorkerLost
from flows.doors.deployments import cir_compare, run_flow, run_training_flow
from flows.drift import InputsChanged
from flows.engines import observed, page_progress
from flows.engines.engine import Prefect
from flows.engines.observed import observe
from storage.catalog import query
from storage.models.folders import model_sha256
from storage.store import LocalStore
from tasks.machine import Machine
from tasks.stages.evaluate import Evaluate
from tests.support.processes import children
from tests.support.small_benchmarks import Bench, Finished
from tests.support.toy_stage import Squares
from tests.support.workshop import Workshop


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    with prefect_test_harness(server_startup_timeout=180):
        yield


def rankings(catalog: Path) -> list[tuple[Any, ...]]:
    return query(catalog, "SELECT * FROM rankings ORDER BY ALL")[1]


def lines_shown(client: SyncPrefectClient, last: str) -> list[dict[str, Any]]:
    """The log on Prefect's pages, once it has the last line: it is sent every few seconds."""
    limit = time.monotonic() + 30
    while True:
        told: list[dict[str, Any]] = client.request("POST", "/logs/filter", json={}).json()
        if any(last in line["message"] for line in told):
            return told
        assert time.monotonic() < limit, told
        time.sleep(0.2)


@pytest.mark.usefixtures("prefect_server")
def test_prefect_makes_what_the_plain_engine_makes(fiq_run: Finished, tmp_path: Path) -> None:
    settings = fiq_run.bench.settings(tmp_path / "store", engine="prefect", workers=1)
    first = run_flow(settings)
    assert rankings(first.catalog) == rankings(fiq_run.run.catalog)
    assert first.run_id == fiq_run.run.run_id
    of_work = "SELECT stage, sittings, recorded, images, queries, pairs, gflop FROM costs"
    assert query(first.catalog, of_work) == query(fiq_run.run.catalog, of_work)
    assert run_flow(settings).made == ()
    with get_client(sync_client=True) as client:
        artifacts = {one.key: str(one.data) for one in client.read_artifacts()}
        shown = client.read_flow_runs()
        told = lines_shown(client, str(first.report.absolute()))
    assert "R@10" in artifacts["recall-fiq-val"]
    assert str(first.report.absolute()) in artifacts["report-fiq-val"]
    assert {one.name for one in shown} == {"fiq-val"}
    assert {*shown[0].tags} == {"fiq", "fiq-original-kept", f"k={settings.k}"}
    of_tasks = [line for line in told if line["name"] == "tasks.stages.ingest"]
    assert of_tasks
    assert all(line["task_run_id"] for line in of_tasks)


@pytest.mark.usefixtures("prefect_server")
def test_inputs_that_changed_fail_the_flow_after_the_results(
    fiq_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_changed(*_arguments: object) -> tuple[str, ...]:
        return ("data/a.png",)

    monkeypatch.setattr("flows.run.find_changed", find_changed)
    with pytest.raises(InputsChanged) as told:
        run_flow(fiq_run.bench.settings(fiq_run.store, engine="prefect"))
    assert told.value.run.run_id == fiq_run.run.run_id
    assert told.value.run.report.is_file()


@pytest.mark.usefixtures("prefect_server")
def test_prefect_trains_what_the_plain_engine_trains(workshop: Workshop) -> None:
    """Validation included, whose tasks run inside the training's."""
    workshop.train("pretrain")
    plain = workshop.train("stage1")
    observed = run_training_flow(workshop.settings("stage1", "observed"))
    assert model_sha256(Path(observed)) == model_sha256(plain)


@pytest.mark.usefixtures("prefect_server")
def test_a_comparison_leaves_its_table_and_where_its_page_is(fiq: Bench, tmp_path: Path) -> None:
    store = tmp_path / "store"
    names = [fiq.run(store, k=k).run_id for k in (6, 4)]
    page = Path(cir_compare(runs=names, rounds=99, store=str(store)))
    assert page.is_file()
    with get_client(sync_client=True) as client:
        (table,) = [str(one.data) for one in client.read_artifacts() if one.key == "comparison"]
    assert "R@10" in table
    assert str(page) in table


# --- tasks


class Passing(Squares):
    """Whose worker is lost once, at shard 4."""

    def _meet_fate(self, shard: str) -> None:
        lost = self.folder / "lost"
        if shard == "4" and not lost.exists():
            lost.touch()
            raise WorkerLost("a process has died")


def task_runs(flow_run: str, count: int) -> list[TaskRun]:
    """Once the server knows so many to have ended: it is told a little later."""
    wanted = FlowRunFilter(name=FlowRunFilterName(any_=[flow_run]))
    limit = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=wanted)
            if sum(run.state is not None and run.state.is_final() for run in runs) == count:
                return runs
            assert time.monotonic() < limit, runs
            time.sleep(0.2)


def conduct(name: str, work: Callable[[], Any]) -> Any:
    return flow(name=name, flow_run_name=name, persist_result=False)(work)()


@pytest.mark.usefixtures("prefect_server")
def test_a_passing_error_costs_a_pause_and_finished_shards_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(page_progress, "SECONDS_BETWEEN_SHOWS", 0.0)
    stage = Passing(LocalStore(tmp_path / "store"), tmp_path)
    assert conduct("passing", lambda: Prefect().make(stage, Machine())) == ("rerank",)
    assert [row["stage2_score"] for row in stage.made.read("scores").to_pylist()] == [
        number**2 for number in range(8)
    ]
    assert conduct("again", lambda: Prefect().make(stage, Machine())) == ()
    (run,) = task_runs("passing", 1)
    assert run.name == "rerank 0-7 (8 shards)"
    assert run.run_count == 2
    with get_client(sync_client=True) as client:
        shown = {one.description: one.data for one in client.read_artifacts()}
    assert shown["squaring: 4 of 8 numbers"] == 50, "as far as it came"
    assert shown["squaring: 8 of 8 numbers"] == 100


@pytest.mark.usefixtures("prefect_server")
def test_what_needs_somebody_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "FIRST_PAUSE", 0.0)
    tried = []

    def work() -> None:
        tried.append(1)
        raise ProblemsFound("3 images cannot be used")

    with pytest.raises(ProblemsFound):
        conduct("problems", lambda: Prefect().observe("ingest", work))
    (run,) = task_runs("problems", 1)
    assert (len(tried), run.run_count, run.state_type) == (1, 1, StateType.FAILED)


@pytest.mark.usefixtures("prefect_server")
def test_a_passing_error_that_stays_is_raised_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "FIRST_PAUSE", 0.0)
    tried = []

    def work() -> None:
        tried.append(1)
        raise OSError(errno.ESTALE, "Stale file handle")

    with pytest.raises(OSError, match="Stale"):
        conduct("stale", lambda: Prefect().observe("publish", work))
    assert len(tried) == 1 + observed.RETRIES


@pytest.mark.usefixtures("prefect_server")
def test_a_page_that_is_lost_stops_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is the server asked at every step."""
    asked = []

    def lost(url: str) -> str:
        asked.append(url)
        return "Connection refused"

    monkeypatch.setattr(page_progress, "fault_of", lost)
    monkeypatch.setattr(page_progress, "SECONDS_BETWEEN_SHOWS", 0.0)
    stage = Squares(LocalStore(tmp_path / "store"), tmp_path)
    with caplog.at_level(logging.INFO):
        assert conduct("lost", lambda: Prefect().make(stage, Machine())) == ("rerank",)
    assert len(asked) == 1
    assert "Prefect does not show how far this is: Connection refused" in caplog.text


# --- the work counts, whatever Prefect does


def flow_that_fails(error: Exception, *, before: bool) -> Callable[[Any], Any]:
    """In place of Prefect: it fails before the work, or when all is done."""

    def as_flow(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(**values: Any) -> None:
            if before:
                raise error
            try:
                work(**values)
            finally:
                raise error

        return run

    return as_flow


def work_that_ends(**values: Any) -> dict[str, Any]:
    return values


def work_that_fails(**_values: Any) -> None:
    raise ProblemsFound("3 images cannot be used")


def work_that_is_interrupted(**_values: Any) -> None:
    raise SystemExit(130)


GONE = httpx.ConnectError("All connection attempts failed")


@pytest.fixture
def logging_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)  # to be restored


@pytest.mark.usefixtures("logging_errors_are_raised")
class TestObserve:
    def test_a_server_that_is_lost_costs_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        assert observe(flow_that_fails(GONE, before=False), work_that_ends, {"k": 3}) == {"k": 3}
        assert "All connection attempts failed" in caplog.text

    def test_what_the_work_raises_is_raised(self) -> None:
        with pytest.raises(ProblemsFound):
            observe(flow_that_fails(GONE, before=False), work_that_fails, {})
        with pytest.raises(SystemExit) as caught:
            observe(flow_that_fails(GONE, before=False), work_that_is_interrupted, {})
        assert caught.value.code == 130

    def test_a_flow_run_that_is_refused_is_told(self) -> None:
        with pytest.raises(PreflightError, match="All connection attempts failed"):
            observe(flow_that_fails(GONE, before=True), work_that_ends, {})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its open sockets
@pytest.mark.usefixtures("prefect_server", "logging_errors_are_raised")
def test_a_run_ends_well_though_its_server_is_killed(
    fiq_run: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And soon, where Prefect by itself would wait 8 s for each of its last events: a minute in
    all. The last test of this server."""
    monkeypatch.setattr("flows.engines.observed.PATIENCE", 0.5)

    evaluate = Evaluate.work

    def evaluate_alone(stage: Evaluate, shards: Any) -> Any:
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        return evaluate(stage, shards)

    monkeypatch.setattr(Evaluate, "work", evaluate_alone)
    run = run_flow(fiq_run.bench.settings(tmp_path / "store", engine="prefect", workers=0))
    assert rankings(run.catalog) == rankings(fiq_run.run.catalog)
    assert run.report.is_file()
    assert "evaluate" in run.made
    assert "Prefect's server is lost (Connection refused): going on without it" in caplog.text
    assert "Prefect could not note how the run ended" in caplog.text
    started = time.monotonic()
    EventsWorker.drain_all()  # as Prefect does when a process ends
    assert time.monotonic() - started < 20
