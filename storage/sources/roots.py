"""Where annotations and images lie: below a folder of this machine, or a prefix of a bucket."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cir_core.errors import PreflightError
from cir_core.picture_files import is_read, is_unread
from cir_core.types import ImageId, Listing
from storage.addresses import bucket_url
from storage.sources.folders import list_images

if TYPE_CHECKING:
    from storage.objects import Objects

Look = tuple[int | str, ...]
"""What any other bytes of a file change. Of an object its tag; of a file its inode, size, and
times: whatever is written to it, or put in its place, changes its inode or the time of its last
change (ctime), which no program sets. (Within one tick of the file system's clock, some
milliseconds, a second write may look the same.)"""


class Root(Protocol):
    """Files under relative paths; the empty one is the root itself."""

    def is_folder(self, relative: str) -> bool: ...

    def is_file(self, relative: str) -> bool: ...

    def read(self, relative: str) -> bytes:
        """All of a file. Raises OSError as the system does, FileNotFoundError among them."""

    def images(self, folder: str) -> Listing:
        """See ``list_images``."""

    def looker(self) -> Callable[[str], Look | None]:
        """Who tells how files look, from now on, before they are read; None of what is not
        there."""

    def told(self, relative: str) -> str:
        """Where a file is, for a user."""


@dataclass(frozen=True)
class FolderRoot:
    path: Path

    def is_folder(self, relative: str) -> bool:
        return (self.path / relative).is_dir()

    def is_file(self, relative: str) -> bool:
        return (self.path / relative).is_file()

    def read(self, relative: str) -> bytes:
        return (self.path / relative).read_bytes()

    def images(self, folder: str) -> Listing:
        return list_images(self.path / folder)

    def looker(self) -> Callable[[str], Look | None]:
        return self._look

    def told(self, relative: str) -> str:
        return str(self.path / relative)

    def _look(self, relative: str) -> Look | None:
        try:
            status = os.stat(os.path.join(self.path, relative))
        except (OSError, ValueError):  # none there, or no possible path
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass(frozen=True)
class BucketRoot:
    """Read object by object, and not kept. A bucket has no links, and no folders but those that
    names tell. Raises as ``Objects``, too."""

    url: str

    def is_folder(self, relative: str) -> bool:
        return self._objects.has_folder(_prefix(relative))

    def is_file(self, relative: str) -> bool:
        return self._objects.find(relative) is not None

    def read(self, relative: str) -> bytes:
        return self._objects.get(relative)[0]

    def read_at_most(self, relative: str, most: int) -> bytes:
        """``read``. Raises OSError EFBIG, before anything is read, for more bytes."""
        return self._objects.get(relative, most=most)[0]

    def names(self, folder: str) -> frozenset[str]:
        """What lies directly in a folder."""
        return self._objects.entries(_prefix(folder))

    def images(self, folder: str) -> Listing:
        prefix = _prefix(folder)
        names = [name.removeprefix(f"{prefix}/") for name in self._objects.below(prefix)]
        seen = [name for name in names if not f"/{name}".count("/.")]
        return Listing(
            tuple(ImageId(name) for name in seen if is_read(name)),
            unread=tuple(filter(is_unread, seen)),
        )

    def looker(self) -> Callable[[str], Look | None]:
        """As they look when one of their folder is first asked for: a request for a thousand
        objects, not one for each."""
        tags = cache(self._objects.tags)

        def look(relative: str) -> Look | None:
            folder, _, name = relative.rpartition("/")
            tag = tags(folder).get(name)
            return None if tag is None else (tag,)

        return look

    def told(self, relative: str) -> str:
        return self._objects.told(relative)

    @property
    def _objects(self) -> "Objects":
        from storage.objects import Objects  # of an extra

        return Objects(self.url)


def _prefix(folder: str) -> str:
    return "" if folder == "." else folder


def open_root(where: Path) -> Root:
    """The root that a user names: a folder, or ``s3://bucket/prefix``. Raises UsageError where the
    extra that buckets need is missing."""
    url = bucket_url(where)
    return FolderRoot(where) if url is None else BucketRoot(url)


def require_root(where: Path) -> None:
    """Raises PreflightError when the data root is not a folder."""
    root = open_root(where)
    if not root.is_folder(""):
        raise PreflightError(
            "the data root is not a folder",
            item=root.told(""),
            remedy="pass the folder that holds the annotation files with --data-root",
        )
