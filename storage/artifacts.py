"""The artifact store: what was made, from what, and whether its bytes are still what they were.

``artifacts/<stage>/<fingerprint>/`` holds parts (Parquet, or arrays) and, written last, a
``manifest.json``. A name says what an artifact is to be made of; the manifest also says which bytes
its inputs had (``sources``). An input whose damaged part was made again, with other last bits on
another machine, say, has the same name and other bytes; then what is made of it is made again, too.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cir_core.errors import StoreCorrupt
from storage import manifests, schemas
from storage.arrays import map_array, write_array
from storage.identities import FINGERPRINT_DIGITS, Identity
from storage.parts import MANIFEST, Parts
from storage.store import Store
from storage.tables import read_table, write_table

_log = logging.getLogger(__name__)


class Artifact:
    """One artifact: parts are committed one by one, the manifest makes it whole.

    A part counts as done when its receipt (rows, bytes, sha256, and the bytes of the inputs it was
    made of) is there and matches. Whatever is read is compared with its sha256 first.
    """

    def __init__(
        self,
        store: Store,
        stage: str,
        fingerprint: str,
        *,
        identity: Identity | None = None,
    ) -> None:
        self.store, self.fingerprint = store, fingerprint
        self.stage: str = stage
        self._parts = Parts(store, f"artifacts/{stage}/{fingerprint}")
        self._identity = identity

    def __str__(self) -> str:
        """Where it is, for a user."""
        return self.store.told(self._parts.folder)

    @property
    def folder(self) -> Path:
        """A folder of this machine that has all of it."""
        return self.store.local_folder(self._parts.folder)

    @property
    def was_begun(self) -> bool:
        """Whether anything of it was ever made."""
        return self.store.has_folder(self._parts.folder)

    @classmethod
    def of(cls, store: Store, identity: Identity) -> "Artifact":
        return cls(store, identity.stage, identity.fingerprint, identity=identity)

    @property
    def has_manifest(self) -> bool:
        """Of any kind: to be believed or not."""
        return self.store.size(self._manifest_name) is not None

    @property
    def is_done(self) -> bool:
        """True when the manifest is there, every part has the bytes it promises, and the inputs
        that are there still have the bytes that it was made of.

        Asking repairs: a damaged part is set aside with a warning, so that making the artifact
        again replaces just that. With a damaged manifest, or inputs with other bytes, all is made.
        """
        manifest = self._manifest()
        if manifest is None:
            self.store.set_aside(self._manifest_name)
            return False
        if not self._is_made_of(manifest["sources"]):
            _log.warning("its inputs have other bytes now, it is made again: %s", self)
            self.store.remove(self._manifest_name)
            return False
        parts: dict[str, dict[str, Any]] = manifest["parts"]
        damaged = [
            name for name, receipt in parts.items() if not self._parts.matches(name, receipt)
        ]
        if damaged:
            self._reopen(manifest, damaged)
        else:
            self._parts.remove_others(parts)  # of a process killed right after the manifest
        return not damaged

    @property
    def is_whole(self) -> bool:
        """Whether there is a manifest to be believed; whether its parts are there is not asked."""
        with suppress(FileNotFoundError, ValueError):
            manifests.parse(self.store.read_text(self._manifest_name), self.fingerprint)
            return len(self.fingerprint) == FINGERPRINT_DIGITS
        return False

    def require_current(self) -> None:
        """Raises StoreCorrupt when the artifact, or anything that it was made of, was made of bytes
        that are not there any more, or has no manifest. Looks at manifests alone."""
        if not self._is_made_of(self._complete()["sources"]):
            raise StoreCorrupt(
                "an artifact was made of other bytes than are there now",
                item=str(self),
                cause="a damaged part of its inputs was made again, and came out differently",
                remedy="repeat the run's command: what is below is then made again, too",
            )
        for source in self._sources.values():
            source.require_current()

    @property
    def content(self) -> str:
        """sha256 over its identity and bytes, and those of all that it was made of. Raises as
        ``identity``."""
        return manifests.content(self._complete())

    def has_part(self, name: str) -> bool:
        """True when an earlier, interrupted run has committed this part, from the inputs' bytes
        that are there now."""
        receipt = self._parts.receipt(name)
        return (
            receipt is not None
            and self._is_made_of(receipt["sources"])
            and self._parts.matches(name, receipt)
        )

    def lacks(self, name: str) -> bool:
        """Whether a part has yet to be made."""
        return not self.is_whole and not self.has_part(name)

    def begun(self) -> list[str]:
        """The names of the parts that an interrupted run has committed, by their receipts alone;
        none once the artifact is whole."""
        return self._parts.begun()

    def write_part(self, name: str, table: pa.Table) -> None:
        """Commit one part and its receipt; a part of the same name is replaced."""
        self._commit(name, table.num_rows, lambda path: write_table(path, table))

    def write_array(self, name: str, array: np.ndarray) -> None:
        """``write_part`` of an array; the name must end in ``.npy``."""
        self._commit(name, len(array), lambda path: write_array(path, array))

    def _commit(self, name: str, rows: int, write: Callable[[Path], None]) -> None:
        self._parts.commit(name, rows, write, self._source_contents)

    def finish(self, identity: Identity, parts: Iterable[str]) -> None:
        """Write the manifest over exactly these parts, in this order; remove what else is here. An
        artifact that another writer has finished stays as it is. Raises StoreCorrupt when a part is
        not there."""
        with self.store.hold(self._parts.folder):
            receipts = self._parts.receipts(parts)
            text = manifests.render(identity.as_json(), receipts, self._source_contents)
            is_mine = self.store.put_new(self._manifest_name, text)
        if is_mine:
            self._parts.remove_others(receipts)

    def identity(self) -> dict[str, Any]:
        """As the manifest records it. Raises StoreCorrupt when there is none."""
        return dict(self._complete()["identity"])

    @property
    def named_by(self) -> dict[str, Any]:
        """The same, also of one that is yet to be made, if it was opened by its identity."""
        return self.identity() if self._identity is None else self._identity.as_json()

    def made_with(self) -> dict[str, str]:
        """Versions of Python and the libraries that made this artifact."""
        return dict(self._complete()["made_with"])

    def part_names(self) -> list[str]:
        """In the manifest's order. Raises as ``identity``."""
        return list(self._complete()["parts"])

    def created_at(self) -> str:
        """When the manifest was written, ISO 8601 in UTC."""
        return str(self._complete()["created_at"])

    def read(self, kind: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All parts of one kind (the name up to the first ``-``), concatenated in order; all their
        columns, or these.

        Raises StoreCorrupt when the artifact is not whole, a part's bytes are not those that the
        manifest promises, or it has other columns than are declared.
        """
        return pa.concat_tables([part.read(columns) for part in self.parts(kind)])

    def parts(self, kind: str) -> list["StoredPart"]:
        """Those of one kind, in order, each to be read by itself. Raises StoreCorrupt when it is
        not whole."""
        return [
            StoredPart(path, receipt["sha256"], self.columns(kind))
            for path, receipt in self._receipts(kind)
        ]

    def columns(self, kind: str) -> pa.Schema | None:
        """Those that parts of a kind are to have; None if nobody says."""
        return None

    def map_arrays(self, kind: str) -> list[np.ndarray]:
        """The array parts of one kind in order, mapped into memory. Raises as ``read``."""
        parts = self._receipts(kind)
        return [map_array(path, sha256=receipt["sha256"]) for path, receipt in parts]

    def _receipts(self, kind: str) -> list[tuple[Path, dict[str, Any]]]:
        parts = self._complete()["parts"].items()
        mine = [(name, receipt) for name, receipt in parts if name.partition("-")[0] == kind]
        if not mine:
            raise StoreCorrupt(
                f"an artifact has no part {kind!r}",
                item=str(self),
                remedy="delete this folder and run the same command again",
            )
        return [(self._parts.local(name, receipt), receipt) for name, receipt in mine]

    def _complete(self) -> dict[str, Any]:
        manifest = self._manifest()
        if manifest is None:
            raise StoreCorrupt(
                "an artifact is not complete",
                item=str(self),
                cause="its manifest is missing or unreadable",
                remedy="run the same command again",
            )
        return manifest

    def _manifest(self) -> dict[str, Any] | None:
        try:
            return manifests.parse(self.store.read_text(self._manifest_name), self.fingerprint)
        except FileNotFoundError:
            return None
        except ValueError:
            _log.warning("a manifest is damaged, its artifact is made again: %s", self)
            return None

    @cached_property
    def _sources(self) -> dict[str, "Artifact"]:
        """Its inputs that are artifacts and are there, by role; none are known of one that is not
        whole and was opened by its name alone."""
        if self._identity is not None:
            inputs = self._identity.inputs
        else:
            manifest = self._manifest()
            inputs = manifest["identity"]["inputs"] if manifest else {}
        named = {role: Artifact(self.store, role, name) for role, name in inputs.items()}
        return {role: artifact for role, artifact in named.items() if artifact.has_manifest}

    @cached_property
    def _source_contents(self) -> dict[str, str]:
        return {role: artifact.content for role, artifact in self._sources.items()}

    def _is_made_of(self, sources: Mapping[str, str]) -> bool:
        return self._source_contents.items() <= sources.items()

    def _reopen(self, manifest: dict[str, Any], damaged: list[str]) -> None:
        for name, receipt in manifest["parts"].items():
            if name in damaged:
                _log.warning("a part is damaged and is made again: %s", self._parts.told(name))
                self._parts.set_aside(name, receipt)
            else:
                self._parts.write_receipt(name, receipt, manifest["sources"])
        self.store.remove(self._manifest_name)

    @property
    def _manifest_name(self) -> str:
        return f"{self._parts.folder}/{MANIFEST}"


@dataclass(frozen=True)
class StoredPart:
    """A part of a whole artifact: its file, the bytes that this is to have, and its columns."""

    path: Path
    sha256: str
    declared: pa.Schema | None

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All columns, or these. Raises StoreCorrupt for other bytes, or for other columns than are
        declared."""
        table = read_table(self.path, columns, sha256=self.sha256)
        if self.declared is not None:
            asked = self.declared if columns is None else map(self.declared.field, columns)
            schemas.require(table.schema, pa.schema(asked), str(self.path.parent))
        return table
