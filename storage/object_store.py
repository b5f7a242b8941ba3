"""A store in a bucket, with copies of its bytes on this machine."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shutil import disk_usage

from storage import leases
from storage.atomic import (
    commit,
    commit_folder,
    commit_text,
    existing_part,
    in_making,
    move,
    sha256_of,
)
from storage.lock import is_writable
from storage.objects import Objects

DIGITS = 16
"""Of a sha256, in names."""

AT_ONCE = 16
"""Requests for small files, each of which waits some 20 ms for its answer."""


@dataclass(frozen=True)
class ObjectStore:
    """See ``storage.store.Store``. What is put goes there by one request, whole, and stays on this
    machine as a copy, below ``copies``; what is read is fetched once, and again when its tag is
    another. Parts have their digest in their names: no writer changes what a receipt or manifest
    promises. Copies can be deleted while nobody runs.

    Raises as ``Objects``, too.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def put(self, name: str, write: Callable[[Path], None]) -> str:
        leases.require_held(self._objects)
        tags: list[str] = []

        def write_and_send(temporary: Path) -> None:
            write(temporary)
            tags.append(self._objects.put(name, temporary))

        digest = commit(self._copy(name), write_and_send)
        self._note(name, tags[0])
        return digest

    def put_text(self, name: str, text: str) -> str:
        content = text.encode()
        leases.require_held(self._objects)
        self._objects.put(name, content)
        return hashlib.sha256(content).hexdigest()

    def put_new(self, name: str, text: str) -> bool:
        leases.require_held(self._objects)
        return self._objects.create(name, text.encode()) is not None

    def put_part(self, name: str, write: Callable[[Path], None]) -> str:
        leases.require_held(self._objects)
        with in_making(self._copy(name)) as temporary:
            write(temporary)
            digest = sha256_of(temporary)
            named = self.part_name(name, digest)
            tag = self._objects.put(named, temporary)
            move(temporary, self._copy(named))
        self._note(named, tag)
        return digest

    def part_name(self, name: str, sha256: str) -> str:
        path = PurePosixPath(name)
        return str(path.with_name(f"{path.stem}.{sha256[:DIGITS]}{path.suffix}"))

    def put_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """One file after the other, and then nothing else is there."""
        leases.require_held(self._objects)
        folder = self._copy(name)
        commit_folder(folder, write)
        files = [path for path in folder.rglob("*") if path.is_file()]
        names = [f"{name}/{path.relative_to(folder).as_posix()}" for path in files]
        before = self._objects.below(name)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for one, tag in zip(names, threads.map(self._objects.put, names, files), strict=True):
                self._note(one, tag)
            list(threads.map(self._objects.remove, sorted({*before} - {*names})))

    def read_text(self, name: str) -> str:
        return self._objects.get(name)[0].decode()

    def size(self, name: str) -> int | None:
        found = self._objects.find(name)
        return None if found is None else found.size

    def names(self, folder: str) -> list[str]:
        return self._objects.names(folder)

    def folders(self, folder: str) -> list[str]:
        return self._objects.folders(folder)

    def has_folder(self, folder: str) -> bool:
        return self._objects.has_folder(folder)

    def files(self) -> dict[str, int]:
        return self._objects.sizes()

    def remove_folder(self, folder: str) -> None:
        """A bucket has none; of the copies they stay."""

    def remove(self, name: str) -> None:
        self._objects.remove(name)
        self._copy(name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._objects.copy(name, str(PurePosixPath(name).with_suffix(".damaged")))
            self._objects.remove(name)

    def hold(self, folder: str) -> AbstractContextManager[None]:
        """Nobody waits: a part and its receipt name each other by the digest, and of two manifests
        the first stays."""
        return nullcontext()

    def local(self, name: str) -> Path:
        """Fetched if there is no copy of it, or one of other bytes; a copy of what is not in the
        store any more is removed."""
        path = self._copy(name)
        found = self._objects.find(name)
        if found is None:
            if path.is_file():
                path.unlink(missing_ok=True)
        elif not (path.is_file() and self._noted(name) == found.tag):
            self._fetch(name, path)
        return path

    def local_folder(self, name: str) -> Path:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self.local, self._objects.below(name)))
        return self._copy(name)

    def told(self, name: str) -> str:
        return self._objects.told(name)

    @property
    def free(self) -> int:
        """For the copies; a bucket has no end."""
        return disk_usage(existing_part(self.copies)).free

    @property
    def is_writable(self) -> bool:
        """Whether copies can be made; of the bucket, the first request tells."""
        return is_writable(self.copies)

    def lease(self) -> AbstractContextManager[None]:
        return leases.lease(self._objects)

    def holder(self) -> str | None:
        return leases.holder_of(self._objects)

    @property
    def copies(self) -> Path:
        """``cir-pipeline/<digest of the URL>`` below the user's cache (``XDG_CACHE_HOME``)."""
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        name = hashlib.sha256(self.url.encode()).hexdigest()[:DIGITS]
        return Path(caches).expanduser() / "cir-pipeline" / name

    def _copy(self, name: str) -> Path:
        return self.copies / "files" / name

    def _tag_file(self, name: str) -> Path:
        return self.copies / "tags" / f"{name}.tag"

    def _fetch(self, name: str, path: Path) -> None:
        """What has gone meanwhile is not there."""
        tags: list[str] = []
        with suppress(FileNotFoundError):
            commit(path, lambda temporary: tags.append(self._objects.fetch(name, temporary)))
            self._note(name, tags[0])

    def _note(self, name: str, tag: str) -> None:
        """After the copy: of one that is killed in between, the tag is another's."""
        commit_text(self._tag_file(name), tag)

    def _noted(self, name: str) -> str:
        with suppress(FileNotFoundError, UnicodeDecodeError):
            return self._tag_file(name).read_text(encoding="utf-8")
        return ""

    @property
    def _objects(self) -> Objects:
        return Objects(self.url)
