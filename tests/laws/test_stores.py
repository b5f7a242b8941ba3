"""What every store promises, whatever keeps its bytes."""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from cir_core.errors import StoreBusy
from storage.artifacts import Artifact
from storage.identities import Identity
from storage.store import LocalStore, Store
from tests.support.buckets import bucket_store
from tests.support.processes import nobody_stays

ROOT = Path(__file__).parents[2]

STORES: dict[str, Callable[[Path], Store]] = {
    "a folder": LocalStore,
    "a bucket": bucket_store,
}

pytestmark = pytest.mark.usefixtures("s3")

NAMES = ("a", "deep/er/b.json", "run:3/c d", "ä/é", "~x", "%41", "a.tmp")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path / "store")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_put_is_there_with_its_digest(store: Store, name: str) -> None:
    assert store.size(name) is None
    assert store.put_text(name, "é\n") == hashlib.sha256("é\n".encode()).hexdigest()
    assert (store.read_text(name), store.size(name)) == ("é\n", 3)
    folder, _, last = name.rpartition("/")
    assert last in store.names(folder)
    store.remove(name)
    store.remove(name)
    assert (store.size(name), store.names(folder)) == (None, [])
    with pytest.raises(FileNotFoundError):
        store.read_text(name)


def test_a_write_that_fails_leaves_what_was_there(store: Store) -> None:
    store.put_text("f/a", "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        assert store.names("f") == ["a"], "a name is listed when it is whole"
        raise ValueError("no")

    for name in ("f/a", "f/b"):
        with pytest.raises(ValueError, match="no"):
            store.put(name, fail)
    assert (store.read_text("f/a"), store.names("f")) == ("old", ["a"])


def test_folders_are_those_that_something_was_put_into(store: Store) -> None:
    assert (store.folders("x"), store.names("x"), store.has_folder("x")) == ([], [], False)
    store.put_text("x/one/a", "")
    store.put_text("x/two/b", "")
    assert (store.folders("x"), store.names("x"), store.has_folder("x")) == (
        ["one", "two"], [], True,
    )  # fmt: skip


def test_all_files_are_told_with_their_bytes(store: Store) -> None:
    assert store.files() == {}
    store.put_text("x/one/a", "12")
    store.put_text("b", "1")
    assert {name: size for name, size in store.files().items() if "lock" not in name} == {
        "b": 1, "x/one/a": 2,
    }  # fmt: skip
    store.remove_folder("x/one")
    assert store.size("x/one/a") == 2
    store.remove("x/one/a")
    store.remove_folder("x/one")
    assert not store.has_folder("x")


def test_what_is_set_aside_keeps_its_bytes(store: Store) -> None:
    store.put_text("f/a.json", "bad")
    store.set_aside("f/a.json")
    store.set_aside("f/a.json")
    assert store.names("f") == ["a.damaged"]
    assert store.read_text("f/a.damaged") == "bad"


def test_a_store_travels_to_other_processes(store: Store) -> None:
    store.put_text("a", "b")
    other: Store = pickle.loads(pickle.dumps(store))
    assert (other, str(other), other.read_text("a")) == (store, str(store), "b")


# --- several writers

HELD = """
import sys, time
from pathlib import Path
from tests.laws.test_stores import STORES
with STORES[sys.argv[1]](Path(sys.argv[2])).lease():
    print("held", flush=True)
    time.sleep(60)
"""

HAMMER = """
import sys
from pathlib import Path
from tests.laws.test_stores import STORES, artifact_of, rows
artifact = artifact_of(STORES[sys.argv[1]](Path(sys.argv[2])))
for number in range(10):
    artifact.write_part("rows", rows(int(sys.argv[3]) + number))
"""


def rows(count: int) -> pa.Table:
    return pa.table({"x": list(range(count))})


def artifact_of(store: Store) -> Artifact:
    return Artifact.of(store, Identity("rank", 1, {}, {}))


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", STORES)
def test_a_lease_excludes_others_until_its_holder_dies(kind: str, tmp_path: Path) -> None:
    store = STORES[kind](tmp_path)
    with started(HELD, kind, str(tmp_path)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert store.holder() == str(holder.pid)
        with pytest.raises(StoreBusy, match="another run"), store.lease():
            pass
        os.kill(holder.pid, signal.SIGKILL)
    with store.lease():
        assert store.holder() is not None


@pytest.mark.parametrize("kind", STORES)
def test_writers_of_one_part_do_not_tear_each_other(kind: str, tmp_path: Path) -> None:
    """Each leaves a part and a receipt that belong together, and no half-written file."""
    arguments = (kind, str(tmp_path))
    with (
        nobody_stays(),
        started(HAMMER, *arguments, "1") as one,
        started(HAMMER, *arguments, "1000") as other,
    ):
        assert (one.wait(), other.wait()) == (0, 0)
    artifact = artifact_of(STORES[kind](tmp_path))
    assert artifact.has_part("rows")
    artifact.finish(Identity("rank", 1, {}, {}), ["rows"])
    assert artifact.read("rows").num_rows in (10, 1009)
    assert artifact.is_done
    assert len(artifact.store.names(f"artifacts/rank/{artifact.fingerprint}")) == 2


@pytest.mark.parametrize("kind", STORES)
def test_a_finished_artifact_is_not_written_again(kind: str, tmp_path: Path) -> None:
    """By a worker that was thought dead, and had the same shard."""
    artifact = artifact_of(STORES[kind](tmp_path))
    artifact.write_part("rows", rows(1))
    artifact.finish(Identity("rank", 1, {}, {}), ["rows"])
    artifact_of(STORES[kind](tmp_path)).write_part("rows", rows(2))
    assert artifact.is_done
    assert artifact.read("rows").num_rows == 1
