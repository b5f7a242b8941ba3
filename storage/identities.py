"""What names an artifact: everything that changes a result, and nothing that does not (batch size,
device, workers and paths), so that other inputs have another name."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from storage import manifests
from storage.formats import STORE_FORMAT

FINGERPRINT_DIGITS = 32


@dataclass(frozen=True)
class Identity:
    """What an artifact is made of. ``inputs`` maps a role to a fingerprint or a sha256; a role that
    is a stage's name is that of an artifact."""

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
        return manifests.digest(self.as_json())[:FINGERPRINT_DIGITS]
