"""What a manifest and a receipt say, and whether they can be believed."""

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

PART = frozenset({"rows", "bytes", "sha256"})
RECEIPT = PART | {"sources"}
MANIFEST = {"identity": dict, "parts": dict, "sources": dict, "made_with": dict, "created_at": str}
IDENTITY = {"stage": str, "store_format": int, "version": int, "settings": dict, "inputs": dict}


def digest(content: Any) -> str:
    """sha256 of the canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def seal(content: Mapping[str, Any]) -> str:
    """A record's text, which ends with a checksum over the rest."""
    return json.dumps({**content, "checksum": digest(content)}, indent=1) + "\n"


def unseal(text: str) -> dict[str, Any]:
    """What ``seal`` was given. Raises ValueError for any other text, also one of the same meaning:
    ``\\u00E9`` for ``\\u00e9`` is one bit."""
    sealed = json.loads(text)
    if not isinstance(sealed, dict):
        raise ValueError("no object")  # noqa: TRY004 - as what is no JSON
    content = {name: value for name, value in sealed.items() if name != "checksum"}
    if seal(content) != text:
        raise ValueError("its checksum is another")
    return content


def render(
    identity: Mapping[str, Any],
    receipts: Mapping[str, Mapping[str, Any]],
    sources: Mapping[str, str],
) -> str:
    """A manifest's text. ``sources`` are the contents of the inputs that are artifacts, by role."""
    manifest = {
        "identity": identity,
        "parts": receipts,
        "sources": sources,
        "made_with": versions(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),  # told, never decided on
    }
    return seal(manifest)


def parse(text: str, fingerprint: str) -> dict[str, Any]:
    """The manifest of the artifact of this fingerprint. Raises ValueError when it is damaged,
    another's, or lacks what this version writes."""
    manifest = parse_any(text, fingerprint)
    if not is_complete(manifest):
        raise ValueError("it is another version's")
    return manifest


def parse_any(text: str, fingerprint: str) -> dict[str, Any]:
    """``parse`` of any version's manifest: its identity and its parts are there."""
    manifest = unseal(text)
    if not _has(manifest, {"identity": dict, "parts": dict}):
        raise ValueError("it lacks what each version writes")
    if not digest(manifest["identity"]).startswith(fingerprint):
        raise ValueError("it is another artifact's")
    return manifest


def is_complete(manifest: Mapping[str, Any]) -> bool:
    """Whether it has all that this version reads."""
    return (
        _has(manifest, MANIFEST)
        and _has(manifest["identity"], IDENTITY)
        and all(isinstance(one, dict) and one.keys() >= PART for one in manifest["parts"].values())
    )


def _has(values: Mapping[str, Any], kinds: Mapping[str, type]) -> bool:
    return all(isinstance(values.get(name), kind) for name, kind in kinds.items())


def content(manifest: Mapping[str, Any]) -> str:
    """sha256 over what an artifact is, its parts' bytes, and its sources; when and with which
    libraries it was made does not count."""
    parts = {name: receipt["sha256"] for name, receipt in manifest["parts"].items()}
    return digest([manifest["identity"], list(parts.items()), manifest["sources"]])


def parse_receipt(text: str) -> dict[str, Any] | None:
    """A part's receipt; None when it is damaged. An older version's has no checksum."""
    try:
        try:
            receipt = unseal(text)
        except ValueError:
            receipt = json.loads(text)
    except ValueError:
        return None
    is_receipt = isinstance(receipt, dict) and receipt.keys() == RECEIPT
    return receipt if is_receipt and isinstance(receipt["sources"], dict) else None


@cache  # each is read from a file of its own
def versions() -> dict[str, str]:
    """Of Python and the libraries that results depend on."""
    packages = ("cir-pipeline", "torch", "pyarrow", "pillow", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
