"""The locks hold what pyproject.toml asks for, in the versions of constraints.txt, with hashes."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / ".ci" / "locks"
HAND_KEPT = "torch-cpu"
DECLARED: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS: dict[str, list[str]] = DECLARED["project"]["optional-dependencies"]
GROUPS: dict[str, list[str]] = DECLARED["dependency-groups"]


def blocks(lock: str) -> list[str]:
    """Of each package its lines, also of the locks with which this one begins."""
    told = (LOCKS / f"{lock}.txt").read_text("utf-8")
    own = [one for one in re.split(r"\n(?=\S)", told.strip()) if not one.startswith(("#", "-r "))]
    return own + [
        one for other in re.findall(r"^-r (\S+)\.txt$", told, re.M) for one in blocks(other)
    ]


def pins(lock: str) -> dict[str, Requirement]:
    told = [Requirement(re.split(r" \\|\n", block)[0]) for block in blocks(lock)]
    return {canonicalize_name(one.name): one for one in told}


def pinned(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    told = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(one.name): pinned(one) for one in told}


NAMES = [path.stem for path in sorted(LOCKS.glob("*.txt"))]


@pytest.mark.parametrize("lock", NAMES)
def test_every_package_of_a_lock_has_hashes(lock: str) -> None:
    for block in blocks(lock):
        first, *hashes = block.split(" \\\n")
        assert "==" in first
        assert hashes
        assert all(re.fullmatch(r" *--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first


def test_the_constraints_are_what_is_locked() -> None:
    locked = {
        name: pinned(one) for lock in NAMES if lock != HAND_KEPT for name, one in pins(lock).items()
    }
    assert locked == constraints(), "say `make lock`"


def test_torchs_other_build_is_of_the_same_version() -> None:
    assert pinned(pins(HAND_KEPT)["torch"]) == constraints()["torch"] + "+cpu"


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("cpu", [*EXTRAS["vlm"], *EXTRAS["cpu"]]),
        ("gpu", [*DECLARED["project"]["dependencies"], *EXTRAS["vlm"], *EXTRAS["gpu"]]),
        ("dev", [*EXTRAS["dev"], *GROUPS["build"], *DECLARED["build-system"]["requires"]]),
        ("tools", GROUPS["tools"]),
    ],
)
def test_what_is_asked_for_is_locked(lock: str, wanted: list[str]) -> None:
    locked = pins(lock)
    for line in wanted:
        one = Requirement(line)
        found = locked.get(canonicalize_name(one.name))
        assert found, f"{one.name} is in no lock: say `make lock`"
        assert one.specifier.contains(pinned(found)), line


def test_what_is_installed_here_is_what_is_locked() -> None:
    for name, one in pins("dev").items():
        if one.marker is None or one.marker.evaluate():
            assert version(name) == pinned(one)
