"""How files looked before they were read: what changed later is found without reading all."""

import os
from pathlib import Path

Look = tuple[int, int, int, int]


class Looks:
    """Files below a folder, each as it looked just before it was read.

    A file that looks the same later holds the same bytes: whatever is written to it, or put in its
    place, changes its inode or the time of its last change (ctime), which no program sets. Only a
    file that looks otherwise need be read again. (Within one tick of the file system's clock, some
    milliseconds, a second write may look the same.)
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._looks: dict[str, Look | None] = {}

    def note(self, relative: str) -> None:
        """Look at a file that is about to be read; the first look counts."""
        self._looks.setdefault(relative, self._look(relative))

    def differing(self) -> list[str]:
        """The files that look otherwise now, or are gone, in the order of their names."""
        return sorted(name for name, look in self._looks.items() if look != self._look(name))

    def _look(self, relative: str) -> Look | None:
        try:
            status = os.stat(os.path.join(self.root, relative))
        except (OSError, ValueError):  # none there, or no possible path
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
