"""Folders of Hugging Face's hub: files beside the weights, and what its client wrote down about a
file that it downloaded."""

import json
import re
from pathlib import Path
from typing import Any

from cir_core.errors import CheckpointRefused
from storage.atomic import sha256_of

_SHA256 = re.compile(r"[0-9a-f]{64}")


def require_downloaded(path: Path) -> None:
    """Raises CheckpointRefused when a file holds other bytes than its publisher's.

    In the client's cache a large file is a link to a blob whose name is its sha256; in a folder of
    the user's own a note lies beside it, which counts until the file is written anew. A file
    without either is believed. Raises OSError.
    """
    published = _blob_name(path) or _noted(path)
    if not published or (found := sha256_of(path)) == published:
        return
    raise CheckpointRefused(
        "a downloaded file is damaged",
        item=str(path),
        cause=f"its sha256 is {found}, and {published} was published",
        remedy="download it again: hf download --force-download",
    )


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises as ``read_text``, and where it is none."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise _unreadable(path, f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise _unreadable(path, "it is not a JSON object")
    return content


def read_text(path: Path) -> str:
    """A file of UTF-8, its bytes as they are. Raises CheckpointRefused where it is missing or
    cannot be read."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, cause: str) -> CheckpointRefused:
    return CheckpointRefused(
        "a Hugging Face folder is not whole",
        item=str(path),
        cause=cause,
        remedy="download the folder again, whole: hf download MODEL --local-dir FOLDER",
    )


def _blob_name(path: Path) -> str:
    real = path.resolve()
    return real.name if real.parent.name == "blobs" and _SHA256.fullmatch(real.name) else ""


def _noted(path: Path) -> str:
    """The note's lines are commit, etag (the sha256 of a large file) and time of the download."""
    note = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    try:
        _, etag, downloaded = note.read_text(encoding="utf-8").split()
        is_older = path.stat().st_mtime <= float(downloaded) + 1  # as the client itself decides
    except (OSError, ValueError):
        return ""
    return etag if is_older and _SHA256.fullmatch(etag) else ""
