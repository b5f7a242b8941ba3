"""Why an artifact is not there: how it differs from the one of its stage that is most like it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cir_core.errors import StoreCorrupt
from storage.artifacts import Identity, finished


def why_missing(store: Path, identity: Identity) -> str:
    """In a few words: which settings, inputs or versions no finished artifact of the stage has.

    Of several, the one with the fewest differences is compared, the first by fingerprint of those.
    """
    differences: list[list[str]] = []
    for artifact in finished(store, identity.stage):
        with suppress(StoreCorrupt):  # a damaged one says nothing, and is reported when it is read
            differences.append(_differences(identity.as_json(), artifact.identity()))
    if not differences:
        return "never made in this store"
    fewest: list[str] = min(differences, key=len)
    return ", ".join(fewest)


def _differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Settings with both values; inputs by their role alone, since their digests tell nobody."""
    settings, others = wanted["settings"], there["settings"]
    told = [
        f"{name} {settings.get(name)}, not {others.get(name)}"
        for name in settings | others
        if settings.get(name) != others.get(name)
    ]
    inputs, others = wanted["inputs"], there["inputs"]
    changed = [name for name in inputs | others if inputs.get(name) != others.get(name)]
    told += [f"new {' and '.join(changed)}"] if changed else []
    formats = ("version", "store_format")
    return told + ["made by another version"] * any(wanted[name] != there[name] for name in formats)
