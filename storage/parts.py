"""The parts of an artifact: each with a receipt beside it until the manifest holds them all."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import manifests
from storage.arrays import ARRAY_SUFFIX, sha256_once
from storage.atomic import disk_errors, sha256_of
from storage.store import Store
from storage.tables import damaged

MANIFEST = "manifest.json"

RECEIPT = ".receipt.json"

ASIDE = ".damaged"
"""What ``Store.set_aside`` gives."""

OURS = (RECEIPT, ASIDE, ".parquet", ARRAY_SUFFIX)
"""Ends of names that artifacts give. What a file manager, a NAS or a person has put beside them is
not ours to remove."""


@dataclass(frozen=True)
class Parts:
    """Those in one folder of a store."""

    store: Store
    folder: str

    def local(self, part: str, receipt: Mapping[str, Any]) -> Path:
        """The file on this machine of what the receipt promises."""
        return self.store.local(self._stored(part, receipt))

    def told(self, part: str) -> str:
        """Where the part is, for a user."""
        return self.store.told(self._name(part))

    def commit(
        self, part: str, rows: int, write: Callable[[Path], None], sources: Mapping[str, str]
    ) -> None:
        """Put a part and its receipt, which belong together whoever else makes the same part. One
        of the same name is replaced, but not in an artifact that another writer has finished."""
        sizes: list[int] = []

        def write_and_measure(path: Path) -> None:
            write(path)
            sizes.append(path.stat().st_size)

        with self.store.hold(self.folder):
            if self.store.size(f"{self.folder}/{MANIFEST}") is not None:
                return
            digest = self.store.put_part(self._name(part), write_and_measure)
            receipt = {"rows": rows, "bytes": sizes[-1], "sha256": digest}
            self.write_receipt(part, receipt, sources)

    def write_receipt(
        self, part: str, receipt: Mapping[str, Any], sources: Mapping[str, str]
    ) -> None:
        """Say that a part is there, and of what it was made."""
        text = manifests.seal({**receipt, "sources": dict(sources)})
        self.store.put_text(self._receipt(part), text)

    def receipt(self, part: str) -> dict[str, Any] | None:
        """None when there is none or it is damaged."""
        try:
            return manifests.parse_receipt(self.store.read_text(self._receipt(part)))
        except (FileNotFoundError, ValueError):
            return None

    def receipts(self, parts: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Those of parts that are there, without of what they were made, which is the same of all.
        Raises StoreCorrupt, naming the part, where there is none."""
        found: dict[str, dict[str, Any]] = {}
        for part in parts:
            receipt = self.receipt(part)
            if receipt is None:
                raise damaged(self.told(part), "it has no receipt, though it was just committed")
            found[part] = {name: told for name, told in receipt.items() if name != "sources"}
        return found

    def begun(self) -> list[str]:
        """The parts that have a receipt."""
        names = self.store.names(self.folder)
        return [name.removesuffix(RECEIPT) for name in names if name.endswith(RECEIPT)]

    def matches(self, part: str, receipt: Mapping[str, Any]) -> bool:
        """Whether a part is there with the bytes that its receipt promises. Raises as
        ``disk_errors``."""
        if self.store.size(self._stored(part, receipt)) != receipt["bytes"]:
            return False
        hashed = sha256_once if part.endswith(ARRAY_SUFFIX) else sha256_of
        path = self.local(part, receipt)
        with disk_errors(path):
            return bool(hashed(path) == receipt["sha256"])

    def set_aside(self, part: str, receipt: Mapping[str, Any]) -> None:
        """A damaged one."""
        self.store.set_aside(self._stored(part, receipt))

    def remove_others(self, receipts: Mapping[str, Mapping[str, Any]]) -> None:
        """All of ours but the parts of these receipts and the manifest: receipts' files, and what
        is no part any more."""
        kept: Collection[str] = {self._stored(part, one) for part, one in receipts.items()}
        for name in self.store.names(self.folder):
            if name.endswith(OURS) and f"{self.folder}/{name}" not in kept:
                self.store.remove(f"{self.folder}/{name}")

    def _stored(self, part: str, receipt: Mapping[str, Any]) -> str:
        return self.store.part_name(self._name(part), receipt["sha256"])

    def _name(self, part: str) -> str:
        return part_name(self.folder, part)

    def _receipt(self, part: str) -> str:
        return f"{self.folder}/{part}{RECEIPT}"


def part_name(folder: str, part: str) -> str:
    """What an artifact in this folder puts a part as."""
    return f"{folder}/{part}" + (".parquet" if not part.endswith(ARRAY_SUFFIX) else "")
