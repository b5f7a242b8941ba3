"""A store: bytes under names. All that opens, lists, commits, maps and leases them is here."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Protocol

from cir_core.errors import UsageError
from storage.atomic import commit, commit_text, existing_part
from storage.lock import hold_store, holder_of, is_writable

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""At the beginning of a URI; a ``Path`` has made one slash of two."""


class Store(Protocol):
    """Bytes under names: relative paths with ``/`` between their parts. A store travels to other
    processes, and ``str`` tells a user where it is."""

    def put(self, name: str, write: Callable[[Path], None]) -> str:
        """Commit what ``write`` leaves in the file that it is given: the name then has all of it,
        or what it had before. Returns the sha256 of the bytes. Raises OutOfSpace when the store is
        full, PreflightError when it cannot be written."""

    def put_text(self, name: str, text: str) -> str:
        """``put`` of a UTF-8 text."""

    def local(self, name: str) -> Path:
        """Where the bytes of a name are on this machine, for who can but open a file; of a name
        that there is none of, where they would be."""

    @property
    def free(self) -> int:
        """Bytes that it has room for."""

    @property
    def is_writable(self) -> bool:
        """Whether a run can put anything there."""

    def lease(self) -> AbstractContextManager[None]:
        """Hold the store for this process; it is free again when the process ends, however. Raises
        StoreBusy at once, naming the holder; OutOfSpace and PreflightError as ``put``."""

    def holder(self) -> str | None:
        """Who holds the store now: the process id, or "unknown"; None when it is free. Raises
        PreflightError where nothing can be leased."""


@dataclass(frozen=True)
class LocalStore:
    """A folder of this machine."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def put(self, name: str, write: Callable[[Path], None]) -> str:
        return commit(self.local(name), write)

    def put_text(self, name: str, text: str) -> str:
        return commit_text(self.local(name), text)

    def local(self, name: str) -> Path:
        return self.root / name

    @property
    def free(self) -> int:
        return disk_usage(existing_part(self.root)).free

    @property
    def is_writable(self) -> bool:
        return is_writable(self.root)

    def lease(self) -> AbstractContextManager[None]:
        return hold_store(self.root)

    def holder(self) -> str | None:
        return holder_of(self.root)


def open_store(where: Path) -> Store:
    """The store that a user names. Raises UsageError for a URI."""
    if _SCHEME.match(str(where)):
        raise UsageError(
            "object stores are not built yet",
            item=str(where).replace(":/", "://", 1),
            cause="it reads as a URI, not as a folder",
            remedy="pass a local folder with --store; of one that is called so, its absolute path",
        )
    return LocalStore(where)
