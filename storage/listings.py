"""The artifacts of a stage that are in a store."""

from storage.artifacts import Artifact
from storage.formats import STORE_FORMAT
from storage.store import Store


def finished(store: Store, stage: str) -> list[Artifact]:
    """The stage's artifacts that are this version's and have a manifest to be believed, by
    fingerprint; ``left_out`` are the others."""
    return [one for one in whole(store, stage) if one.identity()["store_format"] == STORE_FORMAT]


def whole(store: Store, stage: str) -> list[Artifact]:
    """The stage's artifacts of any version that have a manifest to be believed."""
    return [one for one in _named(store, stage) if one.is_whole]


def left_out(store: Store, stage: str) -> list[Artifact]:
    """What has a manifest and is not ``finished``: other versions' artifacts, damaged ones, and
    those under a name that is not theirs."""
    known = {one.fingerprint for one in finished(store, stage)}
    return [one for one in _named(store, stage) if one.fingerprint not in known]


def _named(store: Store, stage: str) -> list[Artifact]:
    """All that have a manifest of any kind."""
    named = [Artifact(store, stage, name) for name in store.folders(f"artifacts/{stage}")]
    return [one for one in named if one.has_manifest]
