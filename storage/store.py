"""A store: bytes under names. All that opens, lists, commits, maps and leases them is here."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Protocol

from storage.addresses import bucket_url
from storage.atomic import (
    commit,
    commit_folder,
    commit_text,
    disk_errors,
    existing_part,
    files_below,
    remove_leftovers,
)
from storage.formats import require_known
from storage.lock import STORE, hold, hold_file, holder_of, is_writable

LOCK_DIGITS = 2
"""Of 256 files that lock folders, which sometimes share one."""


class Store(Protocol):
    """Bytes under names: relative paths with ``/`` between their parts. A store travels to other
    processes, and ``str`` tells a user where it is. Whatever it is asked, it raises StoreFailing
    when its disk or server fails."""

    def put(self, name: str, write: Callable[[Path], None]) -> str:
        """Commit what ``write`` leaves in the file that it is given: the name then has all of it,
        or what it had before. Returns the sha256 of the bytes. Raises OutOfSpace when the store is
        full, PreflightError when it cannot be written."""

    def put_text(self, name: str, text: str) -> str:
        """``put`` of a UTF-8 text."""

    def put_new(self, name: str, text: str) -> bool:
        """``put_text`` where there is nothing of the name; False, and it stays as it is, where
        somebody was first. Where writers of a store can wait for each other, they ``hold`` the
        folder."""

    def put_part(self, name: str, write: Callable[[Path], None]) -> str:
        """``put`` under the ``part_name`` that the digest gives."""

    def part_name(self, name: str, sha256: str) -> str:
        """What bytes of this digest are called that are put as the part of a name: there a store
        keeps others, or none."""

    def put_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Put what ``write`` leaves in the folder that it is given in the place of all that was
        below the name; nothing removes it. For many small files that can be made again: they are
        quicker than by ``put``, and a power cut may spoil them. Raises as ``put``."""

    def read_text(self, name: str) -> str:
        """What ``put_text`` put there. Raises FileNotFoundError, and ValueError for what is no text
        or no file."""

    def size(self, name: str) -> int | None:
        """In bytes; None where there is no such name."""

    def names(self, folder: str) -> list[str]:
        """What is directly in a folder, by last parts, sorted; empty where there is none. What a
        writer has not finished is not there."""

    def folders(self, folder: str) -> list[str]:
        """The folders directly in a folder, as ``names``."""

    def has_folder(self, folder: str) -> bool:
        """Whether anything was ever put below."""

    def files(self) -> dict[str, int]:
        """All that there is, by name, with its bytes, whoever put it there: what a writer has not
        finished, too. Changes nothing. Raises PreflightError where a folder cannot be read."""

    def remove(self, name: str) -> None:
        """Make the name free; nothing where it is."""

    def remove_folder(self, folder: str) -> None:
        """Forget a folder in which nothing is left, and those above it; nothing where something
        is."""

    def set_aside(self, name: str) -> None:
        """Give the bytes another name, with ``.damaged`` in the place of its suffix, for somebody
        to look at; nothing where there are none."""

    def hold(self, folder: str) -> AbstractContextManager[None]:
        """Between several ``put`` into a folder that belong together: one writer at a time, the
        others wait."""

    def local(self, name: str) -> Path:
        """Where the bytes of a name are on this machine, for who can but open a file; of a name
        that there is none of, where they would be."""

    def local_folder(self, name: str) -> Path:
        """The folder of this machine that has all that is below a name."""

    def told(self, name: str) -> str:
        """Where the bytes of a name are, for a user."""

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

    def put_new(self, name: str, text: str) -> bool:
        if self.size(name) is not None:
            return False
        self.put_text(name, text)
        return True

    def put_part(self, name: str, write: Callable[[Path], None]) -> str:
        return self.put(name, write)

    def part_name(self, name: str, sha256: str) -> str:
        """The same: a folder is read by people, and other programs, by the names of its parts."""
        return name

    def put_folder(self, name: str, write: Callable[[Path], None]) -> None:
        commit_folder(self.local(name), write)

    def read_text(self, name: str) -> str:
        path = self.local(name)
        try:
            with disk_errors(path):
                return path.read_text(encoding="utf-8")
        except (IsADirectoryError, NotADirectoryError) as error:
            raise ValueError("no file") from error

    def size(self, name: str) -> int | None:
        path = self.local(name)
        return path.stat().st_size if path.is_file() else None

    def names(self, folder: str) -> list[str]:
        """Also removes what killed writers have left there."""
        path = self.local(folder)
        if not path.is_dir():
            return []
        with disk_errors(path):
            remove_leftovers(path)
            files = [one.name for one in path.iterdir() if one.is_file()]
        return sorted(name for name in files if name[0] != ".")

    def folders(self, folder: str) -> list[str]:
        path = self.local(folder)
        if not path.is_dir():
            return []
        with disk_errors(path):
            return sorted(one.name for one in path.iterdir() if one.is_dir())

    def has_folder(self, folder: str) -> bool:
        return self.local(folder).is_dir()

    def files(self) -> dict[str, int]:
        return files_below(self.root)

    def remove(self, name: str) -> None:
        path = self.local(name)
        with disk_errors(path):
            path.unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        with suppress(OSError):  # something is in it
            while folder:
                self.local(folder).rmdir()
                folder = folder.rpartition("/")[0]

    def set_aside(self, name: str) -> None:
        path = self.local(name)
        with disk_errors(path):
            if path.exists():
                path.replace(path.with_suffix(".damaged"))

    @contextmanager
    def hold(self, folder: str) -> Iterator[None]:
        name = hashlib.sha256(folder.encode()).hexdigest()[:LOCK_DIGITS]
        with hold_file(self.root, self.local(f"locks/{name}")):
            yield

    def local(self, name: str) -> Path:
        return self.root / name

    def local_folder(self, name: str) -> Path:
        return self.local(name)

    def told(self, name: str) -> str:
        return str(self.local(name))

    @property
    def free(self) -> int:
        return disk_usage(existing_part(self.root)).free

    @property
    def is_writable(self) -> bool:
        return is_writable(self.root)

    def lease(self) -> AbstractContextManager[None]:
        return hold(STORE, self.root)

    def holder(self) -> str | None:
        return holder_of(self.root)


def open_store(where: Path) -> Store:
    """The store that a user names: a folder, or ``s3://bucket/prefix``. Raises as ``bucket_url``;
    StoreCorrupt for a folder of a newer format than this version knows. A bucket is asked for its
    format when it is leased: to name one takes no network."""
    url = bucket_url(where)
    if url is None:
        store = LocalStore(where)
        require_known(store.read_text, str(store))
        return store
    from storage.object_store import ObjectStore  # of an extra

    return ObjectStore(url)
