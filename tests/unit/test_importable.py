"""The packages have common names, and are found where other modules have the same ones."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import flows.settings, storage.lock, tasks.progress, cir_core.errors
"""


def import_beside(folder: Path) -> tuple[int, str]:
    """As a script in that folder would."""
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


def test_flows_are_importable_by_the_script_that_runs_prefects_hooks() -> None:
    spec = find_spec("prefect")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "runner"
    assert (folder / "storage.py").is_file(), "the reason for this test is gone"
    assert (folder / "_workspace_runtime_bootstrap.py").is_file()
    assert import_beside(folder) == (0, "")


def test_modules_of_the_same_names_first_on_the_path_are_not_taken(tmp_path: Path) -> None:
    for name in ("tasks", "storage", "cir_core"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    assert import_beside(tmp_path) == (0, "")
