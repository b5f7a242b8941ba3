"""Deployments as docs/prefect.md has them: a server, a worker, and nobody there."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from flows.engines.choice import PREFECT_DEFAULTS
from flows.engines.prefect_api import wait_for_answer
from storage.store import LocalStore
from tasks.shards import PICTURES
from tests.support import gated_flow
from tests.support.processes import children, is_running, nobody_stays
from tests.support.small_benchmarks import Bench

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

GATED = "tests.support.gated_flow.cir_pipeline"


@dataclass(frozen=True)
class Night:
    """A server, and a worker whose folder this is."""

    folder: Path
    environment: Mapping[str, str]
    client: SyncPrefectClient

    def prefect(self, *arguments: str) -> str:
        """What the command says; it must end well."""
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder.parent / "deployer",
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.log
        return done.stdout

    def start(self, deployment: str, **parameters: Any) -> FlowRun:
        found = self.client.read_deployment_by_name(f"cir-pipeline/{deployment}")
        return self.client.create_flow_run_from_deployment(found.id, parameters=parameters)

    def state(self, run: FlowRun) -> StateType | None:
        return self.client.read_flow_run(run.id).state_type

    @property
    def log(self) -> str:
        """The worker's, and that of the runs that it has started."""
        return (self.folder / "worker.log").read_text()


def wait_until(is_so: Callable[[], object], night: Night, seconds: float = 100) -> None:
    limit = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < limit, night.log
        time.sleep(0.1)


def write_deployments(folder: Path) -> None:
    """Fashion-IQ's, and twice the same with the flow that stands still once."""
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (fiq,) = [one for one in content["deployments"] if one["name"] == "fiq"]
    gated = [fiq | {"name": name, "entrypoint": GATED} for name in ("first", "second")]
    content["deployments"] = [fiq, *gated]
    folder.mkdir()
    (folder / "prefect.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    root = tmp_path_factory.mktemp("night")
    write_deployments(root / "deployer")
    folder = root / "worker"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
        **PREFECT_DEFAULTS,
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(root / "home"),
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PYTHONPATH": str(ROOT),
        "PWD": str(folder),
    }

    def start(*arguments: str, log: str) -> subprocess.Popen[bytes]:
        with (folder / log).open("wb") as told:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                cwd=folder,
                env=environment,
                stdout=told,
                stderr=told,
            )

    with nobody_stays(), temporary_settings({PREFECT_API_URL: url}):
        started = [start("server", "start", "--host=127.0.0.1", f"--port={port}", log="server.log")]
        try:
            assert wait_for_answer(url, 170) == "", (folder / "server.log").read_text()
            with get_client(sync_client=True) as client:
                made = Night(folder, environment, client)
                made.prefect("work-pool", "create", "--type", "process", "cir")
                started.append(start("worker", "start", "--pool=cir", log="worker.log"))
                made.prefect("--no-prompt", "deploy", "--all")
                yield made
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def parameters(bench: Bench, **changes: Any) -> dict[str, Any]:
    """As JSON has them; the store is relative."""
    asked = bench.settings(Path("store"), **changes).model_dump(mode="json", exclude_unset=True)
    return asked | {"store": "store"}


PLAIN = """
import sys, tasks.shards
tasks.shards.PICTURES = int(sys.argv.pop(1))
from flows.doors.cli import main
main()
"""
"""The command line, with shards of so many pictures."""


@contextmanager
def plain_run(bench: Bench, store: Path, shard: int = PICTURES) -> Iterator[None]:
    """The same run from the command line, beside what is done here, ended at the end."""
    command = [sys.executable, "-c", PLAIN, str(shard), "run", *bench.arguments(store)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        yield
        assert process.wait(100) == 0


def parts(store: Path) -> dict[str, bytes]:
    files = store.glob("artifacts/*/*/*.parquet")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def test_a_deployment_runs_where_the_worker_is_and_makes_the_command_lines_bytes(
    night: Night, fiq: Bench, tmp_path: Path
) -> None:
    words = [f"--param={name}={json.dumps(value)}" for name, value in parameters(fiq).items()]
    with plain_run(fiq, tmp_path / "plain"):
        night.prefect("deployment", "run", "cir-pipeline/fiq", *words, "--watch")
    assert parts(night.folder / "store") == parts(tmp_path / "plain")
    keys = {one.key: str(one.data) for one in night.client.read_artifacts()}
    assert "R@10" in keys["recall-fiq-val"]
    assert str(night.folder / "store" / "reports") in keys["report-fiq-val"]
    assert float(keys["progress-re-ranking"]) == 100
    runs = {run.name for run in night.client.read_task_runs()}
    assert "encode 0000000-0000028" in runs


def test_a_cancelled_run_lets_the_next_one_go_on(night: Night, fiq: Bench, tmp_path: Path) -> None:
    """And that one, which another deployment has started meanwhile, waits for the store till
    then."""
    store = night.folder / "gated"
    store.mkdir()
    (store / "gate").touch()
    given = parameters(fiq, workers=1) | {"store": "gated"}
    first = night.start("first", **given)
    with plain_run(fiq, tmp_path / "undisturbed", gated_flow.SHARD):
        wait_until((store / "reached").exists, night)
    second = night.start("second", **given)
    wait_until(lambda: "waiting for the store: held by process" in night.log, night)
    process = int(night.client.read_flow_run(first.id).infrastructure_pid or 0)
    family = [process, *children(process)]
    assert len(family) > 1, "somebody decodes images"
    kept = parts(store)
    assert [name for name in kept if name.startswith("artifacts/encode/")]

    night.client.set_flow_run_state(first.id, Cancelling())  # as the page's button does
    wait_until(lambda: not any(map(is_running, family)), night, seconds=20)
    wait_until(lambda: night.state(second) != StateType.RUNNING, night)
    assert night.state(second) == StateType.COMPLETED, night.log
    wait_until(lambda: night.state(first) == StateType.CANCELLED, night)
    assert LocalStore(store).holder() is None
    assert parts(store) == parts(tmp_path / "undisturbed")
    assert kept.items() <= parts(store).items()
