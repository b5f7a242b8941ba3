"""Annotations of a dataset, from below a data root: strict JSON, lists of lines, tables, and the
list of a folder's images."""

import json
import re
from pathlib import Path
from typing import Any

from cir_core.errors import AnnotationError, PreflightError
from storage.folders import list_images
from storage.rows import TABLES, read_rows

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of half a pair: the only way for one into decoded JSON."""


def read_annotation(root: Path, relative: str) -> Any:
    """What an adapter may ask for, decoded: of a folder the paths of the images below it, of a
    table file its ``Rows``, of any other file as ``read_json``.

    Raises AnnotationError when a file is missing or is not what its name says.
    """
    path = root / relative
    if path.is_dir():
        return list_images(path)
    if path.suffix.lower() in TABLES:
        return read_rows(path)
    return read_json(root, relative)


def read_json(root: Path, relative: str) -> Any:
    """Decoded content: of a ``.txt`` file its lines, of any other its JSON.

    Raises AnnotationError when the file is missing or is not what its name says.
    """
    path = root / relative
    try:
        text = path.read_text(encoding="utf-8")
        content = text.splitlines() if path.suffix == ".txt" else json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except FileNotFoundError as error:
        raise AnnotationError(
            "an annotation file is missing",
            item=str(path),
            cause="the data root does not have the published layout, or is another folder",
            remedy="see the README for the layout; point --data-root at the folder that holds it",
        ) from error
    except OSError as error:
        raise AnnotationError(
            "an annotation file cannot be read", item=str(path), cause=str(error)
        ) from error
    except (UnicodeError, json.JSONDecodeError) as error:
        raise AnnotationError(
            "an annotation file is not JSON text",
            item=str(path),
            cause=str(error),
            remedy="download the file again; a saved web page is a common cause",
        ) from error
    return content


def require_root(root: Path) -> None:
    """Raises PreflightError when the data root is not a folder."""
    if not root.is_dir():
        raise PreflightError(
            "the data root is not a folder",
            item=str(root),
            remedy="pass the folder that holds the annotation files with --data-root",
        )
