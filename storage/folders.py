"""Which image files lie below a folder."""

import logging
import os
from pathlib import Path

from cir_core.errors import AnnotationError, PreflightError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm",
)  # fmt: skip
"""Of the formats that ``storage.images`` decodes; the case of the letters does not matter."""

_log = logging.getLogger(__name__)


def list_images(folder: Path) -> tuple[str, ...]:
    """Paths of all image files below a folder, relative to it, in the order of their characters.

    A file is an image by its name's end. Names that begin with a dot, links to folders (with a
    warning) and stores of this pipeline are passed over. Raises AnnotationError listing the names
    that are not UTF-8, and PreflightError when a folder cannot be listed.
    """
    found, links = [], []
    for place, folders, files in os.walk(folder, onerror=_unlistable):
        below = os.path.relpath(place, folder)
        if below != "." and "artifacts" in folders and "lock" in files:
            folders.clear()
            continue
        links += [name for name in folders if os.path.islink(os.path.join(place, name))]
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            name if below == "." else f"{below}/{name}"
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    if links:
        _log.warning("links to folders are not followed: %s", ", ".join(map(ascii, links)))
    _require_utf8(found, folder)
    return tuple(sorted(found))


def _require_utf8(names: list[str], folder: Path) -> None:
    wrong = sorted(ascii(name) for name in names if not _is_utf8(name))
    if wrong:
        raise AnnotationError(
            f"{len(wrong)} image files have names that are not UTF-8",
            item=f"{folder}: {', '.join(wrong)}",
            remedy="rename them: a name is an image's id",
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unlistable(error: OSError) -> None:
    raise PreflightError("a folder cannot be listed", item=str(error.filename), cause=str(error))
