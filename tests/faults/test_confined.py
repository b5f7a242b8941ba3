"""What a process that reads a checkpoint cannot do, even if its loader ran whatever a pickle says.

Here one does. Each bomb is live: without what confines it, it goes off.
"""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from storage.models import confined, pickles, unpickle

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")

HOLE = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
"""A loader that believes everything."""

MOST_BYTES, MOST_SECONDS = 2**20, 2


class Bomb(NamedTuple):
    """Unpickles by calling something."""

    call: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.arguments


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder that may be written, and beside it what may not."""
    (tmp_path / "hole.py").write_text(HOLE)
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


def go(place: Path, bomb: Bomb, *confinement: str) -> subprocess.CompletedProcess[str]:
    (place / "bomb").write_bytes(pickle.dumps(bomb))
    command = [sys.executable, "-I", *confinement, str(place / "hole.py"), str(place / "bomb")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def confinement(place: Path) -> list[str]:
    return [confined.__file__, str(place / "folder"), str(MOST_BYTES), str(MOST_SECONDS)]


def test_this_kernel_holds_to_all_of_it(place: Path) -> None:
    told = "import runpy, sys; print(runpy.run_path(sys.argv[1])['confine'](sys.argv[2]))"
    command = [sys.executable, "-I", "-c", told, confined.__file__, str(place / "folder")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('files', 'processes', 'network')"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (os.fork, ()),
        (subprocess.check_call, (["true"],)),
        (os.execv, ("/bin/true", ["true"])),
        (os.kill, (os.getpid(), 0)),
        (socket.socketpair, ()),
    ],
)
def test_no_process_is_started_replaced_or_ended(
    place: Path, call: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    bomb = Bomb(call, arguments)
    assert go(place, bomb).returncode == 0
    assert "PermissionError: [Errno 1]" in go(place, bomb, *confinement(place)).stderr


def test_no_network_is_reached(place: Path, server: tuple[str, int]) -> None:
    bomb = Bomb(socket.create_connection, (server,))
    assert go(place, bomb).returncode == 0
    assert "PermissionError: [Errno 1]" in go(place, bomb, *confinement(place)).stderr


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (open, ("new", "w")),
        (os.mkdir, ("new",)),
        (os.truncate, ("kept", 0)),
        (os.remove, ("kept",)),
    ],
)
def test_no_file_is_written_but_in_the_folder(
    place: Path, call: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    name, *rest = arguments
    outside, inside = place / name, place / "folder" / name
    (place / "folder" / "kept").write_text("kept")
    done = go(place, Bomb(call, (str(outside), *rest)), *confinement(place))
    assert "PermissionError: [Errno 13]" in done.stderr
    assert (place / "kept").read_text() == "kept"
    assert not (place / "new").exists()
    assert go(place, Bomb(call, (str(inside), *rest)), *confinement(place)).returncode == 0
    assert go(place, Bomb(call, (str(outside), *rest))).returncode == 0


def test_a_file_has_only_so_many_bytes(place: Path) -> None:
    bomb = Bomb(os.truncate, (str(place / "folder" / "kept"), MOST_BYTES + 1))
    (place / "folder" / "kept").touch()
    assert "File too large" in go(place, bomb, *confinement(place)).stderr
    assert go(place, bomb).returncode == 0


def test_processor_time_ends(place: Path) -> None:
    done = go(place, Bomb(sum, (range(10**12),)), *confinement(place))
    assert done.returncode == -pickles.OUT_OF_TIME


# -- the second line, where a kernel holds to nothing


class Ended(BaseException):
    pass


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", ()), ("socket.getaddrinfo", ()), ("os.fork", ()), ("os.exec", ()),
        ("os.system", ()), ("subprocess.Popen", ()), ("os.remove", ()), ("ctypes.dlopen", ()),
        ("open", ("x", "w", os.O_WRONLY)), ("open", ("x", None, os.O_RDWR | os.O_CREAT)),
    ],
)  # fmt: skip
def test_python_ends_the_process_at_what_no_reader_does(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], event: str,
    arguments: tuple[Any, ...],
) -> None:  # fmt: skip
    def end(code: int) -> NoReturn:
        assert code == unpickle.FORBIDDEN_CODE
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended):
        unpickle.forbid(event, arguments)
    assert f"{event} is forbidden" in capfd.readouterr().err


def test_python_lets_a_reader_read() -> None:
    unpickle.forbid("open", ("x", "r", os.O_RDONLY | os.O_CLOEXEC))
    unpickle.forbid("import", ("json", None, None, None, None))
