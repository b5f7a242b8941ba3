"""The page of faults names tests that there are; and what no single test can show of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.documents import ROOT

PAGE = ROOT / "docs" / "reliability.md"
FAULTS = 34
PRODUCT = [
    path
    for layer in ("cir_core", "flows", "storage", "tasks")
    for path in (ROOT / layer).rglob("*.py")
]
"""Modules that a user's process may run."""

CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "create_time", "boot_time",
          "st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "getmtime", "getctime"}  # fmt: skip
"""What tells the time of day, or of a file's last change. Not ``monotonic`` and the like."""

TOLD = {
    "storage/manifests.py": {"now"},  # created_at: read by people
    "tasks/stages/chronicle.py": {"now"},  # when a sitting began: read by people
}
SAVING = {
    "storage/arrays.py": {"time_ns", "st_mtime_ns", "st_ctime_ns"},  # not to hash a file twice
    "storage/sources/roots.py": {"st_mtime_ns", "st_ctime_ns"},  # not to read an image twice
    "storage/models/hub.py": {
        "st_mtime"
    },  # whether a download's note is of this file, as its client
}
"""Where a file that has changed looks different, whatever the clock: one that looks the same is not
read again."""


def rows() -> dict[int, str]:
    lines = PAGE.read_text("utf-8").partition("\n## The faults\n")[2].splitlines()
    return {int(found[1]): line for line in lines if (found := re.match(r"\| (\d+) \|", line))}


def test_every_fault_has_its_row_and_a_test() -> None:
    assert list(rows()) == [*range(1, FAULTS + 1)]
    assert [number for number, row in rows().items() if "::test_" not in row] == []


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > FAULTS
    missing = [
        f"{file}::{function}" for file, function in named if function not in _functions(file)
    ]
    assert missing == []


def _functions(file: str) -> set[str]:
    path = ROOT / "tests" / file
    tree = ast.parse(path.read_text("utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def names_in(path: Path) -> Iterator[tuple[str, str]]:
    """Each attribute and each imported name, with what it is of."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node.value), node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", name.name) for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (("", name.name) for name in node.names)
        elif isinstance(node, ast.keyword):
            yield "keyword", node.arg or ""


def test_no_decision_hangs_on_the_clock() -> None:
    found = {
        str(path.relative_to(ROOT)): {
            name for owner, name in names_in(path) if name in CLOCKS and _is_clock(owner, name)
        }
        for path in PRODUCT
    }
    assert {file: names for file, names in found.items() if names} == TOLD | SAVING


def _is_clock(owner: str, name: str) -> bool:
    return owner in ("time", "datetime", "date") or name not in ("now", "today", "time")


FORKING = {"fork", "forkpty", "preexec_fn", "ProcessPoolExecutor", "DataLoader"}
"""What starts a process without ``exec``, or may."""


def test_no_process_is_forked() -> None:
    for path in PRODUCT:
        names = set(names_in(path))
        assert FORKING.isdisjoint(name for _, name in names), path
        of_multiprocessing = {name for owner, name in names if owner == "multiprocessing"}
        assert of_multiprocessing <= {"Pipe"}, path
        assert "multiprocessing" not in {name for owner, name in names if not owner}, path
