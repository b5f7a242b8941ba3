"""Which processes run, from /proc."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_running(pid: int) -> bool:
    return _parent(pid) is not None


def children(parent: int | None = None) -> list[int]:
    """Processes that a process, by default this one, has started and that run still."""
    wanted = os.getpid() if parent is None else parent
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _parent(pid) == wanted]


@contextmanager
def nobody_stays() -> Iterator[None]:
    """Whoever is started meanwhile has ended; a fixture's processes may have been there before."""
    before = children()
    yield
    assert children() == before


def _parent(pid: int) -> int | None:
    """The parent; None when the process is gone, or dead and nobody has asked yet."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)
