"""A committed file is whole or not there, whatever stops the writing."""

import errno
import hashlib
import os
import posix
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cir_core.errors import OutOfSpace, PreflightError, StoreFailing
from storage.atomic import (
    commit,
    commit_folder,
    commit_text,
    files_below,
    in_making,
    is_abandoned,
    process_start,
    remove_leftovers,
    sha256_of,
)

TEXT = "é\n"


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the disk was waited for, by the real call: other tests do not wait."""
    names: list[str] = []

    def sync(descriptor: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        posix.fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return names


def hexdigest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_commit_returns_the_sha256_of_the_bytes_that_it_leaves(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    assert commit_text(path, TEXT) == hexdigest(TEXT.encode()) == sha256_of(path)
    assert path.read_bytes() == TEXT.encode()


def test_a_name_and_its_bytes_outlive_a_loss_of_power(tmp_path: Path, synced: list[str]) -> None:
    commit_text(tmp_path / "a", TEXT)
    temporary, folder = synced
    assert temporary.startswith(".a.")
    assert folder == tmp_path.name


def test_commit_replaces_an_older_file(tmp_path: Path) -> None:
    commit_text(tmp_path / "a", "old")
    commit_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


def test_the_name_is_free_or_old_until_everything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        seen.append(path.exists())
        temporary.write_text("whole")

    commit(path, write)
    assert seen == [False]
    assert path.read_text() == "whole"


def failing(number: int) -> Any:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


class Stop(BaseException):
    """Like KeyboardInterrupt: nothing catches it by accident."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EIO, "I/O error"), StoreFailing),
        (OSError(errno.EMFILE, "Too many open files"), PreflightError),
        (RuntimeError("cannot open: Too many open files"), PreflightError),  # as DuckDB says it
        (FileNotFoundError(errno.ENOENT, "no file"), FileNotFoundError),
        (ValueError("bad"), ValueError),
        (Stop(), Stop),
    ],
)
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException, told: type[BaseException]
) -> None:
    commit_text(tmp_path / "a", "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(told):
        commit(tmp_path / "a", write)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_failing_system_call_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    commit_text(tmp_path / "a", "old")
    with monkeypatch.context() as patch:
        patch.setattr(f"storage.atomic.os.{function}", failing(errno.EIO))
        with pytest.raises(StoreFailing, match="Input/output error"):
            commit_text(tmp_path / "a", "new")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_full_disk_is_out_of_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"storage.atomic.os.{function}", failing(number))
        with pytest.raises(OutOfSpace) as caught:
            commit_text(tmp_path / "a", "new")
    assert caught.value.exit_code == 8
    assert caught.value.item == str(tmp_path / "a")
    limited = os.strerror(number) if number != errno.ENOSPC else "MiB are free"
    assert limited in caught.value.cause
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("files", "told"), [(1000, True), (0, False)])
def test_a_disk_without_inodes_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, told: bool
) -> None:
    """Some file systems count none: 0 of 0."""
    disk = list(os.statvfs(tmp_path))
    disk[5:8] = [files, 0, 0]
    with monkeypatch.context() as patch:
        patch.setattr("storage.atomic.os.statvfs", lambda _path: os.statvfs_result(disk))
        patch.setattr("storage.atomic.Path.mkdir", failing(errno.ENOSPC))
        with pytest.raises(OutOfSpace) as caught:
            commit_text(tmp_path / "new" / "a", "text")
    assert ("none of its 1000 inodes" in caught.value.cause) == told


def test_a_full_disk_told_in_a_librarys_own_type_is_out_of_space(tmp_path: Path) -> None:
    """As DuckDB and safetensors do."""

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError(f'Could not write file "{temporary}": No space left on device')

    with pytest.raises(OutOfSpace):
        commit(tmp_path / "a", write)
    assert os.listdir(tmp_path) == []


def test_a_file_named_like_the_complaint_is_not_a_full_disk(tmp_path: Path) -> None:
    def write(_temporary: Path) -> None:
        (tmp_path / "No space left on device").read_bytes()

    with pytest.raises(FileNotFoundError):
        commit(tmp_path / "a", write)


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(PreflightError, match="taken"):
        commit_text(tmp_path / "taken" / "inside", "text")
    assert (tmp_path / "taken").is_file()


def test_a_folder_that_cannot_be_written_or_has_a_files_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(PreflightError, match="a folder has the place of a file"):
        commit_text(tmp_path / "a", "text")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(PreflightError, match="a folder cannot be written") as refused:
        commit_text(tmp_path / "b", "text")
    assert refused.value.item == str(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["a", "[b]"])
def test_a_killed_writers_leftover_goes_though_its_process_id_is_another_ones_now(
    tmp_path: Path, name: str
) -> None:
    """In a container all runs have the same."""
    (tmp_path / f".{name}.{os.getpid()}-1-0.tmp").write_text("half")
    commit_text(tmp_path / name, "whole")
    assert os.listdir(tmp_path) == [name]


def test_a_folder_of_many_files_is_not_listed_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".c.1-1-0.tmp").write_text("half")
    commit_text(tmp_path / "a", "first")
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("it is listed again"))
    commit_text(tmp_path / "b", "second")
    commit_text(tmp_path / "c", "third")
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_a_living_writers_temporary_file_stays(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("outer")
        commit_text(tmp_path / "a", "inner")

    commit(tmp_path / "a", write)
    assert (tmp_path / "a").read_text() == "outer"
    assert os.listdir(tmp_path) == ["a"]


def test_a_living_writers_temporary_file_stays_though_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells when the system began by the clock as it is now."""
    with in_making(tmp_path / "a") as temporary:
        temporary.write_text("half")
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 0.0)
        assert not is_abandoned(temporary.name)
        remove_leftovers(tmp_path)
        assert temporary.read_text() == "half"


def test_nobody_began_what_does_not_run() -> None:
    assert process_start(os.getppid()) is not None
    assert process_start(2**40) is None


def fill(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in names:
            (folder / name).write_text(name)

    return write


def test_a_folder_replaces_an_older_one_and_one_of_nothing_removes_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pictures"
    commit_folder(folder, fill("a", "b"))
    commit_folder(folder, fill("b", "c"))
    assert sorted(os.listdir(folder)) == ["b", "c"]
    assert os.listdir(folder.parent) == ["pictures"]
    commit_folder(folder, fill())
    assert os.listdir(folder.parent) == []


def test_a_folder_stays_as_it_was_when_the_writing_stops(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    commit_folder(folder, fill("a"))

    def write(temporary: Path) -> None:
        (temporary / "half").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutOfSpace):
        commit_folder(folder, write)
    assert (os.listdir(folder), os.listdir(tmp_path)) == (["a"], ["pictures"])


def test_a_killed_writers_folder_goes(tmp_path: Path) -> None:
    leftover = tmp_path / f".pictures.{os.getpid()}-1-0.tmp"
    leftover.mkdir()
    (leftover / "half").write_text("half")
    commit_folder(tmp_path / "pictures", fill("a"))
    assert os.listdir(tmp_path) == ["pictures"]


def test_files_below_are_told_through_links_and_once(tmp_path: Path) -> None:
    (tmp_path / "store" / "deep").mkdir(parents=True)
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "large").write_bytes(b"123")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "store" / "deep" / "circle").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "deep" / "a").write_bytes(b"1")
    (tmp_path / "store" / "broken").symlink_to(tmp_path / "none")
    assert files_below(tmp_path / "store") == {"deep/a": 1, "link/large": 3}
    assert files_below(tmp_path / "none") == {}
