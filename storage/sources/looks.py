"""How files looked before they were read: what changed later is found without reading all."""

from pathlib import Path

from storage.sources.roots import Look, open_root


class Looks:
    """Files below a root, each as it looked just before it was read. One that looks the same later
    holds the same bytes (see ``Look``); only a file that looks otherwise need be read again."""

    def __init__(self, root: Path) -> None:
        self.root, self.where = open_root(root), root
        self._look = self.root.looker()
        self._looks: dict[str, Look | None] = {}

    def note(self, relative: str) -> None:
        """Look at a file that is about to be read; the first look counts."""
        if relative not in self._looks:
            self._looks[relative] = self._look(relative)

    def differing(self) -> list[str]:
        """The files that look otherwise now, or are gone, in the order of their names."""
        now = self.root.looker()
        return sorted(name for name, look in self._looks.items() if look != now(name))
