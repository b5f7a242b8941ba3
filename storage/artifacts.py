"""The artifact store: what was made, from what, and whether its bytes are still what they were.

``<store>/artifacts/<stage>/<fingerprint>/`` holds parts (Parquet, or arrays) and, written last, a
``manifest.json``. The fingerprint covers everything that changes a result and nothing that does
not (batch size, device, workers and paths are left out), so an artifact never needs invalidating:
other inputs have another name.
"""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cir_core.errors import StoreCorrupt
from storage.arrays import ARRAY_SUFFIX, map_array, write_array
from storage.atomic import commit, commit_text, sha256_of
from storage.tables import read_table, write_table

STORE_FORMAT = 3
"""Raise when the layout of the store or a schema changes; every fingerprint then changes too."""

FINGERPRINT_DIGITS = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """What an artifact is made of. ``inputs`` maps a role to a fingerprint or a sha256."""

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "store_format": STORE_FORMAT,
            "version": self.version,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
        }

    @cached_property
    def fingerprint(self) -> str:
        return _digest(self.as_json())[:FINGERPRINT_DIGITS]


@dataclass(frozen=True)
class Made:
    """What a task hands to the next: an artifact's name, and whether it was there already."""

    fingerprint: str
    reused: bool


class Artifact:
    """One artifact: parts are committed one by one, the manifest makes it whole.

    A part counts as done when its receipt (rows, bytes, sha256) is there and matches the bytes.
    While the artifact grows, a receipt is a small file beside its part; the manifest then holds
    them all.
    """

    def __init__(self, store: Path, stage: str, fingerprint: str) -> None:
        self.stage, self.fingerprint = stage, fingerprint
        self.folder = store / "artifacts" / stage / fingerprint

    @classmethod
    def of(cls, store: Path, identity: Identity) -> "Artifact":
        return cls(store, identity.stage, identity.fingerprint)

    @property
    def is_done(self) -> bool:
        """True when the manifest is there and every part has the bytes it promises.

        Asking repairs: a damaged part is set aside with a warning, so that making the artifact
        again replaces just that. With a damaged manifest no part can be trusted any more.
        """
        manifest = self._manifest()
        if manifest is None:
            _set_aside(self._manifest_path)
            return False
        parts: dict[str, dict[str, Any]] = manifest["parts"]
        damaged = [name for name, receipt in parts.items() if not self._matches(name, receipt)]
        if damaged:
            self._reopen(parts, damaged)
        else:
            self._remove_strays(parts)  # of a process killed right after it wrote the manifest
        return not damaged

    def has_part(self, name: str) -> bool:
        """True when an earlier, interrupted run has committed this part."""
        try:
            receipt = json.loads(self._receipt(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
            return False
        return _is_receipt(receipt) and self._matches(name, receipt)

    def write_part(self, name: str, table: pa.Table) -> None:
        """Commit one part and its receipt; a part of the same name is replaced."""
        self._commit(name, table.num_rows, lambda temporary: write_table(temporary, table))

    def write_array(self, name: str, array: np.ndarray) -> None:
        """``write_part`` of an array; the name must end in ``.npy``."""
        self._commit(name, len(array), lambda temporary: write_array(temporary, array))

    def _commit(self, name: str, rows: int, write: Callable[[Path], None]) -> None:
        path = self._part(name)
        digest = commit(path, write)
        receipt = {"rows": rows, "bytes": path.stat().st_size, "sha256": digest}
        commit_text(self._receipt(name), json.dumps(receipt))

    def finish(self, identity: Identity, parts: Iterable[str]) -> None:
        """Write the manifest over exactly these parts, in this order; remove what else is here."""
        names = list(parts)
        receipts = {name: json.loads(self._receipt(name).read_text()) for name in names}
        manifest = {
            "identity": identity.as_json(),
            "parts": receipts,
            "made_with": _versions(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),  # told, never decided on
        }
        manifest["checksum"] = _digest(manifest)
        commit_text(self._manifest_path, json.dumps(manifest, indent=1) + "\n")
        self._remove_strays(names)

    def identity(self) -> dict[str, Any]:
        """The identity that the manifest records. Raises StoreCorrupt when there is none."""
        identity: dict[str, Any] = self._complete()["identity"]
        return identity

    def made_with(self) -> dict[str, str]:
        """Versions of Python and the libraries that made this artifact."""
        versions: dict[str, str] = self._complete()["made_with"]
        return versions

    def created_at(self) -> str:
        """When the manifest was written, ISO 8601 in UTC."""
        return str(self._complete()["created_at"])

    def read(self, kind: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All parts of one kind (the name up to the first ``-``), concatenated in order; all their
        columns, or these.

        Raises StoreCorrupt when the artifact is not whole.
        """
        return pa.concat_tables([read_table(path, columns) for path in self._paths(kind)])

    def map_arrays(self, kind: str) -> list[np.ndarray]:
        """The array parts of one kind in order, mapped into memory. Raises as ``read``."""
        return [map_array(path) for path in self._paths(kind)]

    def _paths(self, kind: str) -> list[Path]:
        names = [name for name in self._complete()["parts"] if name.partition("-")[0] == kind]
        if not names:
            raise StoreCorrupt(
                f"an artifact has no part {kind!r}",
                item=str(self.folder),
                remedy="delete this folder and run the same command again",
            )
        return [self._part(name) for name in names]

    def _complete(self) -> dict[str, Any]:
        manifest = self._manifest()
        if manifest is None:
            raise StoreCorrupt(
                "an artifact is not complete",
                item=str(self.folder),
                cause="its manifest is missing or unreadable",
                remedy="run the same command again",
            )
        return manifest

    def _manifest(self) -> dict[str, Any] | None:
        try:
            manifest = json.loads(self._manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, json.JSONDecodeError):
            manifest = None
        if not self._is_sound(manifest):
            _log.warning("a manifest is damaged, its artifact is made again: %s", self.folder)
            return None
        return dict(manifest)

    def _is_sound(self, manifest: Any) -> bool:
        if not isinstance(manifest, dict):
            return False
        content = {name: value for name, value in manifest.items() if name != "checksum"}
        if manifest.get("checksum") != _digest(content):
            return False
        return _digest(content["identity"]).startswith(self.fingerprint)

    def _reopen(self, parts: dict[str, dict[str, Any]], damaged: list[str]) -> None:
        for name, receipt in parts.items():
            if name in damaged:
                _log.warning("a part is damaged and is made again: %s", self._part(name))
                _set_aside(self._part(name))
            else:
                commit_text(self._receipt(name), json.dumps(receipt))
        self._manifest_path.unlink()

    def _remove_strays(self, names: Iterable[str]) -> None:
        kept = {self._part(name) for name in names} | {self._manifest_path}
        for path in self.folder.iterdir():
            if path not in kept:
                path.unlink()

    def _matches(self, name: str, receipt: dict[str, Any]) -> bool:
        path = self._part(name)
        return (
            path.is_file()
            and path.stat().st_size == receipt["bytes"]
            and sha256_of(path) == receipt["sha256"]
        )

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def _part(self, name: str) -> Path:
        return self.folder / (name if name.endswith(ARRAY_SUFFIX) else f"{name}.parquet")

    def _receipt(self, name: str) -> Path:
        return self.folder / f"{name}.receipt.json"


def _digest(content: Any) -> str:
    """sha256 of the canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _is_receipt(receipt: Any) -> bool:
    return isinstance(receipt, dict) and receipt.keys() == {"rows", "bytes", "sha256"}


def _set_aside(path: Path) -> None:
    if path.exists():
        os.replace(path, path.with_suffix(".damaged"))


def _versions() -> dict[str, str]:
    packages = ("cir-pipeline", "torch", "pyarrow", "pillow", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def finished(store: Path, stage: str) -> list[Artifact]:
    """The stage's artifacts that have a manifest, by fingerprint."""
    folder = store / "artifacts" / stage
    return [
        Artifact(store, stage, manifest.parent.name)
        for manifest in sorted(folder.glob("*/manifest.json"))
    ]
