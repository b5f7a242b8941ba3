"""An artifact with its type: what is handed on, so that swapping two is an error of types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa

from storage import schemas
from storage.artifacts import Artifact
from storage.identities import Identity
from storage.store import Store
from storage.tables import read_table

Parts = Mapping[str, pa.Schema]
"""Kinds of parts, in the order in which the manifest tells them: the columns of each; none where
parts are arrays."""

Viewed = TypeVar("Viewed", bound="View")


class View(Artifact):
    """An artifact of the class's stage, there already or to be made; ``holds`` are its parts.

    Two are equal when they name the same artifact of one store.
    """

    stage: str
    holds: ClassVar[Parts] = {}

    def __init__(self, store: Store, fingerprint: str, *, identity: Identity | None = None) -> None:
        super().__init__(store, type(self).stage, fingerprint, identity=identity)

    @classmethod
    def named(cls, store: Store, identity: Identity) -> Self:
        """The artifact of this identity, whether or not it is there."""
        return cls(store, identity.fingerprint, identity=identity)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    def write(self, part: str, content: pa.Table | np.ndarray) -> None:
        """Commit one part of a kind that the view holds. Raises StoreCorrupt for other columns than
        are declared."""
        if isinstance(content, np.ndarray):
            self.write_array(part, content)
            return
        declared = self.holds[part.partition("-")[0]]
        schemas.require(content.schema, declared, str(self._parts.local(part)))
        self.write_part(part, content)

    def read(self, kind: str, columns: Sequence[str] | None = None) -> pa.Table:
        """As ``Artifact.read``; raises StoreCorrupt for other columns than are declared, too."""
        return pa.concat_tables([part.read(columns) for part in self.parts(kind)])

    def parts(self, kind: str) -> list["StoredPart"]:
        """Those of one kind, in order, each to be read by itself. Raises StoreCorrupt when it is
        not whole."""
        return [
            StoredPart(path, receipt["sha256"], self.holds[kind])
            for path, receipt in self._receipts(kind)
        ]

    def setting(self, name: str) -> Any:
        """One of the settings that name it. Raises StoreCorrupt when it is not whole."""
        return self.identity()["settings"][name]

    def digest(self, role: str) -> str:
        """The input of that role: a fingerprint, or a sha256. Raises as ``setting``."""
        return str(self.identity()["inputs"][role])

    def made_of(self, view: type[Viewed]) -> Viewed:
        """The input of that type. Raises as ``setting``."""
        return view(self.store, self.digest(view.stage))


@dataclass(frozen=True)
class StoredPart:
    """A part of a whole artifact: its file, the bytes that this is to have, and its columns."""

    path: Path
    sha256: str
    declared: pa.Schema

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All columns, or these. Raises StoreCorrupt for other bytes, or for other columns than are
        declared."""
        table = read_table(self.path, columns, sha256=self.sha256)
        asked = self.declared if columns is None else map(self.declared.field, columns)
        schemas.require(table.schema, pa.schema(asked), str(self.path.parent))
        return table


@dataclass(frozen=True)
class Made(Generic[Viewed]):
    """What a task hands on, and whether it was there already."""

    view: Viewed
    reused: bool
