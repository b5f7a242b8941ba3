"""Files that a run leaves beside its artifacts (catalog, page, rankings to take away), and whether
they are still what was written."""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.atomic import disk_errors, sha256_of
from storage.store import Store

HEAD = "# cir-pipeline"
SOURCE = "# from"
SEAL = "# sha256 of the lines above:"
"""The last line of a receipt; an older version's has none."""

SUMS = "SHA256SUMS"
"""Of files that are many: their sums alone, which a receipt names."""

SUM = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<file>.+)")


@dataclass(frozen=True)
class Product:
    """Some files in a folder of a store (``""``: directly in it) with one receipt,
    ``<name>.sha256`` beside them, written last.

    ``version`` names what made them. The receipt is in the form that ``sha256sum --check`` reads,
    and says in comments which version made the files, and of what.
    """

    store: Store
    folder: str
    name: str
    version: str
    files: Sequence[str]

    def sources(self) -> Mapping[str, str]:
        """What the files were made of, as it was recorded; nothing when there is no receipt, it is
        another version's, or any file's bytes are not those that were written."""
        text = self._recorded
        sources = dict(_sources_in(text))
        with contextlib.suppress(OSError):
            if text == self._text(sources):
                return sources
        return {}

    def names(self, source: str) -> bool:
        """Whether the files are there, and this version has recorded that they were made of the
        source; whoever may have changed them since."""
        are_there = all(self.store.size(self._named(file)) is not None for file in self.files)
        recorded = self._recorded
        return (
            are_there and recorded.startswith(self._head) and source in dict(_sources_in(recorded))
        )

    def recorded(self) -> Mapping[str, str]:
        """What the files were made of by their receipt, whoever may have changed them since."""
        return dict(_sources_in(self._recorded))

    def forget(self) -> None:
        """Remove the files and their receipt."""
        self.store.remove(self._receipt)
        for file in self.files:
            self.store.remove(self._named(file))

    def holds(self, source: str, content: str) -> bool:
        """Whether the files are this version's, as they were written, and made of this content of
        the source, perhaps beside others."""
        return self.sources().get(source) == content

    def record(self, sources: Mapping[str, str]) -> None:
        """Write the receipt of the files as they are now. Names and digests of ``sources`` are
        words without white space."""
        text = self._text(sources)
        self.store.put_text(self._receipt, text + _seal(text))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the files are on this machine."""
        return tuple(self.store.local(self._named(file)) for file in self.files)

    @property
    def _receipt(self) -> str:
        return self._named(f"{self.name}.sha256")

    @property
    def _recorded(self) -> str:
        """Without its seal; empty where there is none to be believed."""
        try:
            return unsealed(self.store.read_text(self._receipt))
        except (OSError, ValueError):
            return ""

    def _named(self, file: str) -> str:
        return f"{self.folder}/{file}" if self.folder else file

    @property
    def _head(self) -> str:
        return f"{HEAD} {self.name} {self.version}\n"

    def _text(self, sources: Mapping[str, str]) -> str:
        lines = [self._head.rstrip()]
        lines += [f"{SOURCE} {name} {content}" for name, content in sources.items()]
        for path, file in zip(self.paths, self.files, strict=True):
            with disk_errors(path):
                lines.append(f"{sha256_of(path)}  {file}")
        return "\n".join([*lines, ""])


def unsealed(receipt: str) -> str:
    """A receipt without its last line, if that is a seal. Raises ValueError for another's."""
    text, found, _ = receipt.partition(SEAL)
    if found and receipt != text + _seal(text):
        raise ValueError("its checksum is another")
    return text


def sums_in(receipt: str) -> dict[str, str]:
    """The sha256 of each file that a receipt names, by the file. Raises ValueError for lines that
    no receipt has, and for another seal."""
    sums: dict[str, str] = {}
    for line in unsealed(receipt).splitlines():
        found = SUM.fullmatch(line)
        if found:
            sums[found["file"]] = found["sha256"]
        elif not line.startswith((HEAD, SOURCE)):
            raise ValueError("it has a line that no receipt has")
    return sums


def _seal(text: str) -> str:
    return f"{SEAL} {hashlib.sha256(text.encode()).hexdigest()}\n"


def _sources_in(receipt: str) -> Iterator[tuple[str, str]]:
    for line in receipt.splitlines():
        words = line.removeprefix(SOURCE).split()
        if line.startswith(SOURCE) and len(words) == 2:  # noqa: PLR2004 - a name and a digest
            yield words[0], words[1]
