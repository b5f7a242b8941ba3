"""One writing run per store; the kernel frees it, whatever became of the holder."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cir_core.errors import OutOfSpace, PreflightError, StoreBusy
from storage.lock import STORE, hold, holder_of

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from storage.lock import STORE, hold, holder_of
with hold(STORE, Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_holder(store: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the store until its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_holder_is_told_at_once_who_holds(tmp_path: Path) -> None:
    with other_holder(tmp_path) as process:
        with pytest.raises(StoreBusy, match=f"held by process {process.pid}\n") as caught:
            hold(STORE, tmp_path).__enter__()
        assert caught.value.exit_code == 5
        assert caught.value.item == str(tmp_path)
    with hold(STORE, tmp_path):
        pass


def test_a_killed_holder_frees_the_store_at_once(tmp_path: Path) -> None:
    with other_holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold(STORE, tmp_path):
            assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_the_store_is_free_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task"), hold(STORE, tmp_path):
        raise ValueError("task")
    with hold(STORE, tmp_path):
        pass


def test_a_holder_is_told_whatever_the_lock_says(tmp_path: Path) -> None:
    with other_holder(tmp_path):
        (tmp_path / "lock").write_bytes(b"\xff12")
        assert holder_of(tmp_path) == "\ufffd12"


def test_a_shorter_process_id_replaces_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("9" * 30)
    with hold(STORE, tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_two_stores_do_not_disturb_each_other(tmp_path: Path) -> None:
    with hold(STORE, tmp_path / "one"), hold(STORE, tmp_path / "two" / "deeper"):
        assert (tmp_path / "two" / "deeper").is_dir()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_store_that_cannot_be_written_is_refused_before_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PreflightError) as caught:
        hold(STORE, tmp_path / name).__enter__()
    assert caught.value.exit_code == 4
    assert caught.value.item == str(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_is_refused_before_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PreflightError):
        hold(STORE, tmp_path).__enter__()


def test_a_store_on_a_read_only_disk_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.lock.os.open", failing(errno.EROFS))  # for root, too
    with pytest.raises(PreflightError, match="the store cannot be written") as caught:
        hold(STORE, tmp_path).__enter__()
    assert caught.value.exit_code == 4
    assert "Read-only file system" in caught.value.cause


def failing(number: int) -> Any:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("storage.lock.fcntl.flock", failing(number))
    with pytest.raises(PreflightError, match="flock") as caught:
        hold(STORE, tmp_path).__enter__()
    assert caught.value.exit_code == 4
    assert "local disk" in caught.value.remedy
    with pytest.raises(PreflightError, match="flock"):
        holder_of(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("function", ["os.open", "os.pwrite", "Path.mkdir"])
def test_a_full_disk_at_the_lock_is_out_of_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    store = tmp_path / "new" / "store"
    with monkeypatch.context() as patch:
        patch.setattr(f"storage.lock.{function}", failing(number))
        with pytest.raises(OutOfSpace) as caught:
            hold(STORE, store).__enter__()
    assert caught.value.exit_code == 8
    with hold(STORE, store):
        pass


@pytest.mark.parametrize(("kind", "warns"), [("nfs4", True), ("ext4", False)])
def test_a_store_on_a_network_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    kind: str, warns: bool,
) -> None:  # fmt: skip
    def mounts(*, all: bool) -> list[SimpleNamespace]:  # noqa: A002 - psutil's word
        assert all
        return [
            SimpleNamespace(mountpoint=str(tmp_path.resolve()), fstype=kind),
            SimpleNamespace(mountpoint="/", fstype="nfs"),
        ]

    monkeypatch.setattr("psutil.disk_partitions", mounts)
    with hold(STORE, tmp_path / "store"):
        assert (f"the store lies on {kind}" in caplog.text) == warns
