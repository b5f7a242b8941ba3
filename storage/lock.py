"""One writing run per store, and one training per folder, in a folder that can be written."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cir_core.errors import PreflightError, StoreBusy
from storage.atomic import disk_errors, existing_part, is_full, out_of_space

PID_BYTES = 100
"""More than any process id has digits."""


OVER_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs"}
"""As Linux calls file systems whose locks depend on how they are mounted."""

_log = logging.getLogger(__name__)


class Held(NamedTuple):
    """What is held: how it, and whoever holds it, is called, and the option that names it."""

    folder: str
    holder: str
    option: str


STORE = Held("store", "run", "--store")
TRAINING = Held("training's folder", "training", "--out")


def is_writable(folder: Path) -> bool:
    """Whether files can be put into a folder that is there, or that could be made."""
    existing = existing_part(folder)
    return existing.is_dir() and os.access(existing, os.W_OK)


def holder_of(store: Path) -> str | None:
    """Who holds the store now: the process id, or "unknown"; None when it is free.

    Asking takes the lock, shared, for a moment: a run that starts in that very moment is refused.
    Raises PreflightError where nothing can be locked.
    """
    try:
        with (store / "lock").open(errors="replace") as file:
            if not _locked(STORE, store, file.fileno(), fcntl.LOCK_SH):
                return file.read().strip() or "unknown"
    except FileNotFoundError:
        pass
    return None


@contextmanager
def hold(held: Held, folder: Path) -> Iterator[None]:
    """Hold a store, or a training's folder, for this process; the kernel releases it when the
    process ends, however.

    Raises StoreBusy at once, naming the holder; OutOfSpace when the disk is full; PreflightError
    when the folder is not writable, or its file system has no locks.
    """
    descriptor = _open(held, folder, folder / "lock")
    try:
        if not _locked(held, folder, descriptor, fcntl.LOCK_EX):
            holder = os.read(descriptor, PID_BYTES).decode(errors="replace").strip()
            raise StoreBusy(
                f"another {held.holder} holds the {held.folder}",
                item=str(folder),
                cause=f"held by process {holder or 'unknown'}",
                remedy=f"wait for it to end, or use another {held.option}",
            )
        _sign(folder, descriptor)
        _warn_of_network(held, folder)
        yield
    finally:
        os.close(descriptor)


def _open(held: Held, folder: Path, file: Path) -> int:
    """For writing: NFS locks no other."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if is_full(error):
            raise out_of_space(file, error) from error
        raise PreflightError(
            f"the {held.folder} cannot be written",
            item=str(folder),
            cause=str(error),
            remedy=f"pass a writable folder with {held.option}",
        ) from error


def _locked(held: Held, folder: Path, descriptor: int, kind: int, *, wait: bool = False) -> bool:
    """False when another process holds the lock, and that is not to be waited for."""
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise PreflightError(
            f"the {held.folder} cannot be locked",
            item=str(folder),
            cause=f"its file system does not lock files (flock): {error}",
            remedy=f"pass a folder on a local disk with {held.option}",
        ) from error
    return True


def _warn_of_network(held: Held, folder: Path) -> None:
    """There a lock holds between machines only where all of them mount it so that it does."""
    kind = file_system_of(folder)
    if kind in OVER_NETWORK:
        _log.warning(
            "the %s lies on %s, where a lock may hold on this machine alone, and a dead machine's "
            "may stay: let no other machine use it meanwhile (%s)",
            held.folder,
            kind,
            folder,
        )


def file_system_of(path: Path) -> str:
    """What a file system is called that holds a path, which need not be there, in the system's
    table of mounts; empty where that does not tell."""
    import psutil

    absolute = existing_part(path).resolve()
    mounts = [
        one for one in psutil.disk_partitions(all=True) if absolute.is_relative_to(one.mountpoint)
    ]
    deepest = max(mounts, key=lambda one: len(Path(one.mountpoint).parts), default=None)
    return "" if deepest is None else deepest.fstype


def _sign(folder: Path, descriptor: int) -> None:
    """Leave the process id, for those who find the folder held."""
    with disk_errors(folder / "lock"):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)


@contextmanager
def hold_file(store: Path, file: Path) -> Iterator[None]:
    """Hold a file of the store, which is made, waiting for whoever holds it; the kernel releases it
    when this process ends. Raises as ``hold``, but StoreBusy."""
    descriptor = _open(STORE, store, file)
    try:
        _locked(STORE, store, descriptor, fcntl.LOCK_EX, wait=True)
        yield
    finally:
        os.close(descriptor)


def is_open_for_writing(path: Path) -> bool:
    """Whether a living process has a database file open for writing: DuckDB then holds a record
    lock, which the kernel drops when the process dies. True where that cannot be found out."""
    try:
        with path.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
