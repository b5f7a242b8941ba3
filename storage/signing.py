"""A store says which format it has from the first time that it is held for writing."""

import logging

from storage.formats import FORMAT_FILE, STORE_FORMAT, marker, newer, require_known
from storage.listings import whole
from storage.store import Store

_log = logging.getLogger(__name__)


def sign(store: Store) -> None:
    """Leave this version's marker in a store; the caller holds it. One without a marker is what its
    manifests say.

    Artifacts of older formats stay as they are, beside what this version makes, and are told of:
    nothing that it computes can be read from them. Raises StoreCorrupt, and changes nothing, where
    anything is of a newer format.
    """
    told = require_known(store.read_text, str(store))
    if told == STORE_FORMAT:
        return
    found = formats_in(store)
    if max(found, default=0) > STORE_FORMAT:
        raise newer(str(store), max(found), "a later version")
    older = sorted(one for one in found if one < STORE_FORMAT)
    if older:
        _log.warning(
            "the store has artifacts of format %s, and this version writes %d: they are left out, "
            "the commands that made them make them again, and `cir-pipeline store gc` removes them",
            ", ".join(map(str, older)), STORE_FORMAT,
        )  # fmt: skip
    store.put_text(FORMAT_FILE, marker())


def formats_in(store: Store) -> set[int]:
    """Of all artifacts that have a manifest to be believed."""
    stages = store.folders("artifacts")
    return {one.identity()["store_format"] for stage in stages for one in whole(store, stage)}
