"""An artifact with its type: what is handed on, so that swapping two is an error of types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa

from storage import schemas
from storage.artifacts import Artifact
from storage.identities import Identity
from storage.store import Store

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
        if not isinstance(other, View) or type(self) is not type(other):
            return NotImplemented
        return (self.store, self.fingerprint) == (other.store, other.fingerprint)

    def __hash__(self) -> int:
        return hash((self.store, self.fingerprint))

    def write(self, part: str, content: pa.Table | np.ndarray) -> None:
        """Commit one part of a kind that the view holds. Raises StoreCorrupt for other columns than
        are declared."""
        if isinstance(content, np.ndarray):
            self.write_array(part, content)
            return
        declared = self.holds[part.partition("-")[0]]
        schemas.require(content.schema, declared, self._parts.told(part))
        self.write_part(part, content)

    def columns(self, kind: str) -> pa.Schema:
        return self.holds[kind]

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
class Made(Generic[Viewed]):
    """What a task hands on, and whether it was there already."""

    view: Viewed
    reused: bool
