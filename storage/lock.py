"""One writing run per store, in a folder that can be written."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cir_core.errors import PreflightError, StoreBusy


def existing_part(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    parents = (folder, *folder.absolute().parents)
    return next(one for one in parents if os.path.exists(one))  # also below what may not be read


def is_writable(folder: Path) -> bool:
    """Whether files can be put into a folder that is there, or that could be made."""
    existing = existing_part(folder)
    return existing.is_dir() and os.access(existing, os.W_OK)


def holder_of(store: Path) -> str | None:
    """Who holds the store now: the process id, or "unknown"; None when it is free.

    Asking takes the lock, shared, for a moment: a run that starts in that very moment is refused.
    """
    try:
        with (store / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
    except FileNotFoundError:
        pass
    return None


@contextmanager
def hold_store(store: Path) -> Iterator[None]:
    """Hold the store for this process; the kernel releases it when the process ends, however.

    Raises StoreBusy at once, naming the holder, and PreflightError when the store is not writable.
    """
    path = store / "lock"
    try:
        store.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise PreflightError(
            "the store cannot be written",
            item=str(store),
            cause=str(error),
            remedy="pass a writable folder with --store",
        ) from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreBusy(
                "another run holds the store",
                item=str(store),
                cause=f"held by process {file.read().strip() or 'unknown'}",
                remedy="wait for it to end, or use another --store",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
