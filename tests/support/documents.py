"""The code in a document, and a reader who does what it says.

A ```python block is the reader's program; all of a document share one namespace. Below a heading
that names a file (``### 1. The adapter: `cir_core/datasets/birds.py` ``) a block belongs to that
file: ```python is a new file, or the end of one that is there; ```diff is an edit of one, found by
the lines that it keeps and removes.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
_FILE = re.compile(r"`(\w+(?:/\w+)+\.py)`")


@dataclass(frozen=True)
class Block:
    """``line`` is that of its first line of code; ``file`` the one that its heading names."""

    language: str
    code: str
    line: int
    file: str | None


def prose(text: str) -> str:
    """The text with its blocks blanked out, every other character in its place."""
    return _FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)


def blocks(text: str) -> Iterator[Block]:
    """Every fenced block, from the top down. A ``#`` within a block is no heading."""
    told = _HEADING.finditer(prose(text))
    headings = [(heading.start(), _FILE.search(heading[0])) for heading in told]
    for fence in _FENCE.finditer(text):
        names = [name for start, name in headings if start < fence.start()]
        file = names[-1][1] if names and names[-1] else None
        yield Block(fence[1], fence[2], text.count("\n", 0, fence.start(2)) + 1, file)


def section(text: str, heading: str) -> str:
    """What stands below a heading (``## Images``), up to the next of its level or a higher one."""
    level, _, _ = heading.partition(" ")
    start = text.index(f"\n{heading}\n") + len(heading) + 2
    end = re.search(rf"^#{{1,{len(level)}}} ", prose(text)[start:], re.MULTILINE)
    return text[start : start + end.start()] if end else text[start:]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each ``cir-pipeline`` command in the shell blocks."""
    for block in blocks(text):
        if block.language == "sh":
            for line in block.code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and Path(words[0]).name == "cir-pipeline":
                    yield words[1:]


def place(block: Block, root: Path) -> None:
    """Put a file's block where it belongs below ``root``. Raises ValueError where an edit's lines
    are not there once, or nothing names the file."""
    if block.file is None:
        raise ValueError(f"line {block.line}: no heading names the file to change")
    path = root / block.file
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    path.write_text(_edit(before, block) if block.language == "diff" else before + block.code)


def _edit(before: str, block: Block) -> str:
    lines = block.code.splitlines(keepends=True)
    old = "".join(line[1:] or line for line in lines if not line.startswith("+"))
    new = "".join(line[1:] or line for line in lines if not line.startswith("-"))
    if before.count(old) != 1:
        raise ValueError(
            f"line {block.line}: {block.file} holds these lines {before.count(old)} times"
        )
    return before.replace(old, new)
