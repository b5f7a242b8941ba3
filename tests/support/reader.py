"""Runs a document's programs: ``reader.py DOCUMENT``, in a folder with a copy of the packages.

The files that the document makes or changes are in place; its tests run last.
"""

import runpy
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def read(document: Path) -> None:
    """Raises whatever a block or a test raises, with the document's line."""
    from tests.support.documents import blocks

    written = list(blocks(document.read_text(encoding="utf-8")))
    program: dict[str, Any] = {"__name__": document.stem}
    for block in written:
        if block.language == "python" and block.file is None:
            padded = "\n" * (block.line - 1) + block.code  # errors tell the document's line
            exec(compile(padded, str(document), "exec"), program)
    run_tests(program)
    for file in sorted({block.file for block in written if block.file}):
        if Path(file).name.startswith("test_"):
            run_tests(runpy.run_path(file))


def run_tests(namespace: dict[str, Any]) -> None:
    for name, value in list(namespace.items()):
        if name.startswith("test_"):
            value()


if __name__ == "__main__":
    sys.path[0] = ""  # the working folder, whose packages come before the installed ones
    sys.path.append(str(ROOT))
    sys.meta_path.insert(0, PathFinder)
    read(Path(sys.argv[1]))
