"""Files that appear whole or not at all."""

import errno
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from cir_core.errors import OutOfSpace, PreflightError, StoreFailing, is_transient
from storage.descriptors import out_of_descriptors, says

_LEFTOVER = ".*.tmp*"
_TEMPORARY = re.compile(r"\.(?P<process>\d+)-(?P<started>\d+)-\d+\.tmp")

_STARTED = 19
"""Where that is told in what follows a process's name (proc_pid_stat(5), field 22). psutil's
``create_time`` adds when the system began, by its clock."""

_numbers = itertools.count()
"""Of this process's temporary files: threads may write one name at once."""


def commit(path: Path, write: Callable[[Path], None]) -> str:
    """Let ``write`` fill a temporary neighbour of ``path``, make it durable, and move it there.

    Returns the sha256 of the bytes. Whatever stops this before the rename leaves ``path`` as it
    was, and nothing half-written stays behind. Raises as ``in_making``, and PreflightError where
    ``path`` is a folder.
    """
    if path.is_dir():
        raise PreflightError(
            "a folder has the place of a file",
            item=str(path),
            remedy="name another file, or free this name",
        )
    with in_making(path) as temporary:
        write(temporary)
        digest = sha256_of(temporary)
        move(temporary, path)
    return digest


@contextmanager
def in_making(path: Path) -> Iterator[Path]:
    """A temporary neighbour of ``path``, yet to be written, which is gone afterwards. Raises as
    ``disk_errors``, and PreflightError when the folder cannot be made or written."""
    make_folder(path.parent)
    with disk_errors(path):
        _remove_earlier(path)
    temporary = _temporary(path)
    try:
        with disk_errors(path):
            yield temporary
    finally:
        with suppress(OSError):  # it is found by the next writer
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the system, or who writes by it, says of a disk that is full is raised as OutOfSpace,
    of one that fails as StoreFailing, and that no further file can be opened as PreflightError: no
    file is to blame. All else passes on: that a file is not there, say."""
    try:
        yield
    except Exception as error:  # a full disk has many types
        if is_full(error):
            raise out_of_space(path, error) from error
        if lacking := out_of_descriptors(error):
            raise lacking from error
        if isinstance(error, OSError) and is_transient(error):
            raise StoreFailing(
                "a disk does not do what it is asked",
                item=str(path),
                cause=str(error),
                remedy="see to the disk, or to the network that it is behind, then run the same "
                "command again: what is there is kept",
            ) from error
        raise


def move(temporary: Path, path: Path) -> None:
    """A file whose bytes are durable before it is there, and which then is."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def commit_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary folder beside ``path``, and move it there in place of what was
    there; an empty one removes that. For many small files that can be made again: they are not
    synced one by one, as ``commit``'s are, and between the two there is a moment without any.

    Raises as ``commit``; until the move the folder stays as it was.
    """
    make_folder(path.parent)
    temporary = _temporary(path)
    try:
        with disk_errors(path):
            _remove_earlier(path)
            temporary.mkdir()
            write(temporary)
            shutil.rmtree(path, ignore_errors=True)
            if any(temporary.iterdir()):
                os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A neighbour's name that no other writer has."""
    writer = f"{os.getpid()}-{process_start(os.getpid())}-{next(_numbers)}"
    return path.with_name(f".{path.name}.{writer}.tmp")


def leftover_in(name: str) -> str | None:
    """The part of a path that is a writer's temporary file or folder; None in any other path."""
    return next((part for part in name.split("/") if fnmatchcase(part, _LEFTOVER)), None)


def is_abandoned(leftover: str) -> bool:
    """Whether the writer of a temporary name does not live any more."""
    writer = _TEMPORARY.search(leftover)
    return not (writer and process_start(int(writer["process"])) == int(writer["started"]))


def files_below(folder: Path) -> dict[str, int]:
    """Every file's bytes by its path from the folder, in order; what links lead to, each folder
    once, and not what leads nowhere. Empty where there is no folder. Raises PreflightError where
    one cannot be read."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise PreflightError(
                "a folder cannot be read",
                item=str(error.filename),
                cause=str(error.strerror),
                remedy="give the current user read permission",
            ) from error

    sizes, seen = dict[str, int](), set[str]()
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            path = Path(here, name)
            with suppress(FileNotFoundError):  # a writer has moved it
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return dict(sorted(sizes.items()))


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder; a living writer's stays."""
    for leftover in folder.glob(_LEFTOVER):
        _remove_abandoned(leftover)


def _remove_earlier(path: Path) -> None:
    """Remove what killed writers had left of a name when this process first wrote into its folder.
    That is listed once: an artifact's folder can have a million files. What others leave later goes
    when the folder is next listed, or written by a new process."""
    for leftover in _there_at_first(path.parent.absolute()):
        if leftover.name.startswith(f".{path.name}."):
            _remove_abandoned(leftover)


@cache
def _there_at_first(folder: Path) -> tuple[Path, ...]:
    return tuple(folder.glob(_LEFTOVER))


def _remove_abandoned(leftover: Path) -> None:
    if not is_abandoned(leftover.name):
        return
    if leftover.is_dir():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def process_start(process: int) -> int | None:
    """When a process began, in ticks since the system did, whatever the clock has been set to
    since; None when there is none. A number alone may be another's by now: in a container every run
    has the same. Where the system does not tell (it is no Linux), 0 of whatever runs."""
    if not Path("/proc/self/stat").exists():
        import psutil

        return 0 if psutil.pid_exists(process) else None
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(status.rpartition(")")[2].split()[_STARTED])


def make_folder(path: Path) -> None:
    """Raises OutOfSpace when the disk is full, and PreflightError when there is no folder and none
    can be made, or it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_full(error):
            raise out_of_space(path, error) from error
        raise PreflightError(
            "a folder cannot be made",
            item=str(path),
            cause=str(error),
            remedy="name another folder, or free this name",
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):  # before work, and whatever the writer would raise
        raise PreflightError(
            "a folder cannot be written",
            item=str(path),
            remedy="name another folder, or give the current user write permission",
        )


def existing_part(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    parents = (folder, *folder.absolute().parents)
    return next(one for one in parents if os.path.exists(one))  # also below what may not be read


def commit_text(path: Path, text: str) -> str:
    """``commit`` of a UTF-8 text."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return commit(path, write)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: Exception) -> bool:
    """Whether it says that there is no space, no inode, or no quota left, or that a file is larger
    than its user may make one; also of DuckDB's and safetensors' types."""
    return says(error, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def out_of_space(path: Path, error: Exception) -> OutOfSpace:
    """The error of a path that a full disk, or its user's limits, have no room for; it says what
    has run out. Call it where the failure is met: later there may be room again."""
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.EDQUOT):
        return OutOfSpace(
            "a limit is reached",
            item=str(path),
            cause=f"{os.strerror(error.errno)}: of the user (quota, ulimit -f) or the file system",
            remedy="raise it, or move the store with --store, then run the same command again",
        )
    there = existing_part(path)
    disk = os.statvfs(there)
    cause = f"{shutil.disk_usage(there).free / 2**20:.0f} MiB are free there"
    remedy = "free space"
    if disk.f_files and not disk.f_favail:  # 0 of 0 where a file system has no such limit
        cause += f", and none of its {disk.f_files} inodes: it holds no further file, of any size"
        remedy = (
            "delete files that nobody needs, on that disk (their number counts, not their size)"
        )
    return OutOfSpace(
        "the disk is full",
        item=str(path),
        cause=cause,
        remedy=f"{remedy}, or move the store with --store, then run the same command again",
    )
