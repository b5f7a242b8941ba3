"""Annotations of a dataset, from below a data root: strict JSON, lists of lines, tables, and the
list of a folder's images."""

import hashlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from cir_core.errors import AnnotationError
from cir_core.types import Listing
from storage.sources.looks import Looks
from storage.sources.roots import Root, open_root
from storage.sources.rows import TABLES, read_rows

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of half a pair: the only way for one into decoded JSON."""


class AnnotationReader:
    """What an adapter reads below a data root. Each file is opened once, however often it is asked
    for, so that the bytes that are named are the bytes that were parsed.

    ``sha256`` names the files by their bytes, ``listings`` holds the folders', ``looks`` how the
    files looked.
    """

    def __init__(self, root: Path) -> None:
        self._root = open_root(root)
        self._contents: dict[str, Any] = {}
        self.sha256: dict[str, str] = {}
        self.listings: dict[str, Listing] = {}
        self.looks = Looks(root)

    def read(self, relative: str) -> Any:
        """Decoded content: of a folder its ``Listing``, of a table file its
        ``Rows``, of a ``.txt`` file its lines, of any other its JSON.

        Raises AnnotationError when a file is missing or is not what its name says.
        """
        if relative not in self._contents:
            self._contents[relative] = self._read(relative)
        return self._contents[relative]

    def inputs(self) -> dict[str, str]:
        """What names the files in an identity. A file that lies elsewhere (its path is absolute) is
        called by its bytes: the same table is the same wherever it lies."""
        return {
            sha256 if os.path.isabs(file) else file: sha256 for file, sha256 in self.sha256.items()
        }

    def _read(self, relative: str) -> Any:
        if self._root.is_folder(relative):
            self.listings[relative] = self._root.images(relative)
            return self.listings[relative]
        self.looks.note(relative)
        content = _read_bytes(self._root, relative)
        path = Path(self._root.told(relative))
        self.sha256[relative] = hashlib.sha256(content).hexdigest()
        return read_rows(content, path) if _is_table(path) else _decode(content, path)


def _read_bytes(root: Root, relative: str) -> bytes:
    try:
        return root.read(relative)
    except FileNotFoundError as error:
        raise _missing(root.told(relative)) from error
    except OSError as error:
        raise AnnotationError(
            "an annotation file cannot be read", item=root.told(relative), cause=str(error)
        ) from error


def _missing(told: str) -> AnnotationError:
    if _is_table(Path(told)):
        return AnnotationError(
            "a table file is missing",
            item=told,
            remedy="put it there, or name another: docs/own-data.md tells how",
        )
    return AnnotationError(
        "an annotation file is missing",
        item=told,
        cause="the data root does not have the published layout, or is another folder",
        remedy="docs/benchmarks.md shows the layout; point --data-root at the folder that holds it",
    )


def _decode(content: bytes, path: Path) -> Any:
    """Of a ``.txt`` file the lines, of any other the JSON."""
    try:
        text = content.decode("utf-8-sig")  # editors of Windows write a byte order mark
        decoded = _lines(text) if path.suffix == ".txt" else json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(decoded, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or none that Python reads
        raise AnnotationError(
            "an annotation file is not JSON text",
            item=str(path),
            cause=str(error),
            remedy="download the file again; a saved web page is a common cause",
        ) from error
    return decoded


def _lines(text: str) -> list[str]:
    """Ended by line feeds, carriage returns or both; other separators are part of a name."""
    return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES
