"""Which layout a store has: its marker, and which version of this package may touch it."""

from collections.abc import Callable
from importlib.metadata import version

from cir_core.errors import StoreCorrupt
from storage import manifests

STORE_FORMAT = 3
"""Raise when the layout of the store or a schema changes; every fingerprint then changes too."""

FORMAT_FILE = "format.json"


def marker() -> str:
    """What this version leaves in a store that it writes."""
    told = {"store_format": STORE_FORMAT, "made_by": f"cir-pipeline {version('cir-pipeline')}"}
    return manifests.seal(told)


def require_known(read_text: Callable[[str], str], store: str) -> int | None:
    """The format that a store's marker tells, this one's or an older one; None where it has no
    marker. Raises StoreCorrupt for a newer format, and for a damaged marker."""
    try:
        text = read_text(FORMAT_FILE)
    except UnicodeDecodeError as error:
        raise _unreadable(store, str(error)) from error
    except (FileNotFoundError, ValueError):  # no file there: what else is, is told when it is held
        return None
    try:
        found = manifests.unseal(text)
        told, made_by = int(found["store_format"]), str(found["made_by"])
    except (ValueError, LookupError, TypeError) as error:
        raise _unreadable(store, str(error)) from error
    if told > STORE_FORMAT:
        raise newer(store, told, made_by)
    return told


def newer(store: str, told: int, made_by: str) -> StoreCorrupt:
    """The error of a store that a later version of this package has written."""
    return StoreCorrupt(
        "a store is of a newer format",
        item=store,
        cause=f"its format is {told}, written by {made_by}; this is cir-pipeline "
        f"{version('cir-pipeline')}, which knows formats up to {STORE_FORMAT}",
        remedy="install that version or a later one, or name another folder with --store",
    )


def _unreadable(store: str, cause: str) -> StoreCorrupt:
    return StoreCorrupt(
        "a store's format cannot be told",
        item=f"{store}/{FORMAT_FILE}",
        cause=f"the file is damaged: {cause}",
        remedy="delete it: the next run writes it anew, and looks at the artifacts themselves",
    )
