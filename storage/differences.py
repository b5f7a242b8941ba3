"""Why an artifact is not there: how it differs from the one of its stage that is most like it."""

from collections.abc import Mapping
from typing import Any

from storage.identities import Identity
from storage.listings import whole
from storage.store import Store


def why_missing(store: Store, identity: Identity) -> str:
    """In a few words: what the artifact has other than the finished one of its stage that is most
    like it, which is the one with the fewest other inputs, and of those with the fewest other
    settings."""
    # a damaged one says nothing, and is reported when it is read
    neighbours = [artifact.identity() for artifact in whole(store, identity.stage)]
    if not neighbours:
        return "never made in this store"
    wanted = identity.as_json()
    nearest = min(
        neighbours,
        key=lambda there: tuple(
            len(_differing(wanted[part], there[part])) for part in ("inputs", "settings")
        ),
    )
    return ", ".join(_told(wanted, nearest))


def _differing(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    return [name for name in {**wanted, **there} if wanted.get(name) != there.get(name)]


def _word(settings: Mapping[str, Any], name: str) -> str:
    """A setting is not in a name where it is what it always was: other names stay as they are."""
    if name not in settings:
        return "the default"
    return "none" if settings[name] is None else str(settings[name])


def _told(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Settings with both values; inputs by their role alone, since their digests tell nobody."""
    settings, others = wanted["settings"], there["settings"]
    told = [
        f"{name} {_word(settings, name)}, not {_word(others, name)}"
        for name in _differing(settings, others)
    ]
    told += [f"another {name}" for name in _differing(wanted["inputs"], there["inputs"])]
    formats = ("version", "store_format")
    return told + ["made by another version"] * any(wanted[name] != there[name] for name in formats)
