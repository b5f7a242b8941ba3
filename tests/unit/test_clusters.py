"""Workers of a cluster: who may work, what each has, and what is heard of those that are gone. No
cluster is needed to tell."""

import pickle
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cir_core.errors import CirError, PreflightError, UsageError
from flows.engines.clusters import Cluster, served
from flows.engines.library import Distant, Gone, require_listener
from flows.engines.processes import Processes
from flows.engines.runners import here, open_workers
from flows.engines.scouting import Needs
from flows.engines.sharing import Given, Share
from flows.inputs import resolve_inputs
from flows.settings import Settings
from storage.store import LocalStore
from tasks.agent import Agent
from tasks.child import Lost
from tasks.looking import Question, Seen, made_with, see
from tasks.machine import Machine
from tasks.progress import Task
from tasks.worker import Counted, Ended, Job
from tests.support.toy_stage import Squares

GIB = 2**30
HERE = made_with()
ALL_WELL = Seen("a", HERE, 8 * GIB, (), None)


class Scripted:
    """An agent of a worker that sees and says what it is told to."""

    def __init__(self, says: list[Any], last: Exception | None = None) -> None:
        self.says, self.last = says, last
        self.ends = 0

    def begin(self, serve: str, order: bytes, environment: Mapping[str, str]) -> None:
        pickle.loads(order)

    def hear(self) -> list[bytes]:
        if not self.says and self.last is not None:
            raise self.last
        said, self.says = self.says, []
        return [pickle.dumps(one) for one in said]

    def end(self) -> None:
        self.ends += 1


class Drawn:
    """A cluster of such workers, all with four threads."""

    noun: ClassVar[str] = "Drawn"

    def __init__(self, **agents: Scripted) -> None:
        self.agents = agents

    def places(self, *, on_gpu: bool) -> Mapping[str, int]:
        return dict.fromkeys(self.agents, 4)

    def agent(self, place: str, *, on_gpu: bool) -> Scripted:
        return self.agents[place]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def cluster_of(store: LocalStore, seen: Mapping[str, Seen], most: int | None = None) -> Cluster:
    drawn = Drawn(**{place: Scripted([one]) for place, one in seen.items()})
    on_gpu = any(one.gpu for one in seen.values())
    return Cluster(drawn, Needs(store, (), on_gpu), most)


# --- who may work


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ({}, "has no workers"),
        ({"one": ALL_WELL._replace(made_with=HERE | {"torch": "1.0"})}, "torch 1.0, not 2"),
        ({"one": ALL_WELL._replace(made_with=HERE | {"code": "another"})}, "code another, not"),
        ({"one": ALL_WELL._replace(unseen=("/models/stage1",))}, "one on a: /models/stage1"),
        ({"one": ALL_WELL, "two": ALL_WELL._replace(gpu="0")}, "one on a"),
        (dict.fromkeys(("one", "two"), ALL_WELL._replace(gpu="0")), "one and two on a: 0"),
    ],
    ids=["nobody", "version", "code", "path", "no GPU", "one GPU for two"],
)
def test_workers_that_cannot_do_the_work_are_refused_by_name(
    store: LocalStore, seen: Mapping[str, Seen], told: str
) -> None:
    with pytest.raises(PreflightError) as caught:
        cluster_of(store, seen)
    assert told in str(caught.value)
    assert caught.value.remedy
    assert not store.names("locks") or all("seen" not in one for one in store.names("locks"))


@pytest.mark.parametrize("last", [Gone("it is off"), None])
def test_a_worker_that_does_not_answer_is_refused(
    store: LocalStore, last: Gone | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engines.scouting.SECONDS_TO_START", 0.05)
    with pytest.raises(PreflightError, match="does not answer"):
        Cluster(Drawn(one=Scripted([], last)), Needs(store, (), on_gpu=False), None)


def test_a_worker_sees_the_store_itself_and_what_is_needed(
    store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    files = (tmp_path / "model", tmp_path / "data")
    with Needs(store, files, on_gpu=False).asked() as question:
        seen = see(question)
        elsewhere = see(replaced(question, store=LocalStore(tmp_path / "another")))
    assert seen.unseen == (str(tmp_path / "data"),)
    assert elsewhere.unseen == (str(tmp_path / "another"), str(tmp_path / "data"))
    assert seen.made_with == HERE
    assert seen.gpu is None


def replaced(question: Question, store: LocalStore) -> Question:
    return Question(
        question.folder, store, question.name, question.text, question.needed, question.on_gpu
    )


# --- what each has


def test_workers_of_one_host_share_it(store: LocalStore) -> None:
    other = ALL_WELL._replace(host="b")
    cluster = cluster_of(store, {"one": ALL_WELL, "two": ALL_WELL, "three": other})
    assert cluster.number(Machine()) == 3
    one, two, three = cluster.shares(Machine(workers=3), 9)
    assert (one.place, one.environment["OMP_NUM_THREADS"]) == ("one", "4")
    assert one.machine == two.machine == Machine(workers=2, memory=2 * GIB)
    assert three.machine == Machine(workers=3, memory=4 * GIB)
    assert [share.place for share in cluster.shares(Machine(), 2)] == ["one", "two"]


def test_each_has_its_gpu_and_not_more_work_than_asked(store: LocalStore) -> None:
    seen = {name: ALL_WELL._replace(gpu=gpu) for name, gpu in (("one", "3"), ("two", "GPU-5f"))}
    one, two = cluster_of(store, seen).shares(Machine(device="cuda:1"), 9)
    assert one.environment == {"CUDA_VISIBLE_DEVICES": "3"}
    assert two.environment == {"CUDA_VISIBLE_DEVICES": "GPU-5f"}
    assert one.machine == Machine(device="cuda")
    assert cluster_of(store, seen, most=1).number(Machine()) == 1


# --- what is heard


def given(store: LocalStore, place: str) -> Given:
    job = Job(Squares(store, Path()), ["1"], Machine(), 0, Path())
    return Given(Share(Machine(), {}, place), job)


def test_all_is_heard_and_who_is_gone_is_forgotten(store: LocalStore) -> None:
    task = Task("squaring", 8, "numbers", 0)
    one = Scripted([task, Counted(3), Ended(None)])
    two = Scripted([Lost("signal 9", was_killed=True)])
    three = Scripted([task], Gone("its machine is off"))
    agents: dict[str, Distant] = {"one": one, "two": two, "three": three}
    with served(agents, [given(store, place) for place in agents]) as all_say:
        heard = list(all_say)
    lost = {said.fate for said in heard if isinstance(said, Lost)}
    assert lost == {"two: signal 9", "three: its machine is off"}
    assert heard.count(task) == 2
    assert heard.count(Ended(None)) == heard.count(Counted(3)) == 1
    assert [*agents] == ["one", "two"]
    assert one.ends == two.ends == three.ends == 1


def test_a_bug_of_listening_is_raised_and_ends_the_others(store: LocalStore) -> None:
    one, two = Scripted([Ended(None)]), Scripted([], KeyError("a bug"))
    agents: dict[str, Distant] = {"one": one, "two": two}
    with (
        pytest.raises(KeyError, match="a bug"),
        served(agents, [given(store, place) for place in agents]) as all_say,
    ):
        list(all_say)
    assert one.ends == two.ends == 1


def test_an_agent_whom_nobody_hears_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.agent.SECONDS_UNHEARD", 0.1)
    monkeypatch.setattr("tasks.agent.SECONDS_PER_ANSWER", 0.05)
    agent = Agent()
    agent.begin("time:sleep", pickle.dumps("an order that is not read"), {})
    assert agent.hear() == []
    time.sleep(0.5)
    (said,) = agent.hear()
    assert pickle.loads(said).was_killed


# --- what is asked for


def test_addresses_are_tried_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        require_listener("Dask", f"tcp://{address}")
    with pytest.raises(PreflightError, match="no Dask cluster answers"):
        require_listener("Dask", address)
    for wrong in ("host", "tcp://host", "host:many"):
        with pytest.raises(UsageError, match="no address"):
            require_listener("Ray", wrong)


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"address": "host:1"}, UsageError, "--runner dask or --runner ray"),
        ({"runner": "ray", "address": "host:1", "devices": "0"}, UsageError, "leave out --devices"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: Mapping[str, Any], kind: type[CirError], told: str
) -> None:
    inputs = resolve_inputs(Settings(store=tmp_path))
    assert isinstance(open_workers(Settings(), inputs).__enter__(), Processes)
    with pytest.raises(kind) as caught:
        open_workers(Settings(**changes), inputs)
    assert told in caught.value.remedy


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_runner_that_is_not_installed_is_told_with_the_command(
    runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engines.runners.find_spec", lambda _: None)
    with pytest.raises(PreflightError) as caught, here(runner, 2):
        pass
    assert f"pip install 'cir-pipeline[{runner}]'" in caught.value.remedy
