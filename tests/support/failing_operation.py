"""The Nth operation of a store fails, once: on a file system, or on an object store.

Operations of a folder are what Python tells its audit hooks of paths in it (open, rename, remove,
make, list), and each sync. Libraries that write by themselves (pyarrow, numpy, DuckDB) do so into a
temporary file, which is opened again to be hashed: failing then, half of the file is lost first, as
of a disk that was full in the middle of it. Operations of a bucket are its requests, and those of
the folder of copies.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import GenericError

ON_FILES = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir"),
    *("os.truncate", "os.chmod", "os.link", "os.symlink", "shutil.rmtree", "shutil.copyfile"),
}
"""Audit events whose first argument is a path."""

REQUESTS = ("put", "get", "head", "list", "list_with_delimiter", "delete", "copy")

NO_OPERATION = 0
"""None fails."""


def count_operations(folder: str, told: str) -> None:
    """Write, at the process's end, how many operations there were, into the file ``told``."""
    import atexit

    failing = _Failing(folder, NO_OPERATION, "kill")
    failing.install()
    atexit.register(lambda: Path(told).write_text(str(failing.count), encoding="utf-8"))


def fail_at(folder: str, number: int, kind: str) -> None:
    """``kind``: ``full`` (no space left) and ``io`` (the disk, or the server, fails) raise;
    ``kill`` ends the process before the operation, ``killed after`` a request when it is done."""
    _Failing(folder, number, kind).install()


class _Failing:
    def __init__(self, folder: str, number: int, kind: str) -> None:
        self.count = 0
        self._folder, self._number, self._kind = folder, number, kind

    def install(self) -> None:
        sys.addaudithook(self._hear)
        os.fsync = self._wrapped_sync(os.fsync)  # type: ignore[assignment]  # of descriptors
        for name in REQUESTS:
            setattr(obstore, name, self._wrapped(getattr(obstore, name)))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ON_FILES or not self._is_mine(arguments[0]):
            return
        path = os.fsdecode(arguments[0])
        is_written = event == "open" and path.endswith(".tmp") and "r" in str(arguments[1] or "")
        self._next(path if is_written else None)

    def _wrapped_sync(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def failing_sync(descriptor: int) -> None:
            if self._is_mine(os.readlink(f"/proc/self/fd/{descriptor}")):
                self._next(None)
            sync(descriptor)

        return failing_sync

    def _wrapped(self, request: Callable[..., Any]) -> Callable[..., Any]:
        def failing_request(*arguments: Any, **options: Any) -> Any:
            if isinstance(options.get("mode"), dict):  # a beat of the lease: they come by the clock
                return request(*arguments, **options)
            is_mine = self._counted()
            if is_mine and self._kind == "killed after":
                request(*arguments, **options)
            if is_mine:
                self._fail_request()
            return request(*arguments, **options)

        return failing_request

    def _fail_request(self) -> None:
        if self._kind.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        raise GenericError("Generic S3 error: 503 Service Unavailable")

    def _is_mine(self, path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False  # a descriptor
        name = os.path.abspath(os.fsdecode(path))
        return name == self._folder or name.startswith(f"{self._folder}/")

    def _counted(self) -> bool:
        self.count += 1
        return self.count == self._number

    def _next(self, written: str | None) -> None:
        if not self._counted():
            return
        if written is not None:
            os.truncate(written, os.stat(written).st_size // 2)
        if self._kind.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.ENOSPC if self._kind == "full" else errno.EIO
        raise OSError(number, os.strerror(number))
