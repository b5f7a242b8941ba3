"""Can a run work here: each check by itself, with what is wrong made wrong on purpose."""

import errno
import fcntl
import os
import shutil
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from cir_core.doctor.findings import Finding
from flows.settings import shipped_model
from storage.lock import STORE, hold, holder_of
from storage.models.folders import read_config, read_tensors, write_checkpoint
from storage.store import LocalStore
from tasks.doctor import environment
from tasks.doctor.environment import check_environment, check_models, check_store
from tests.support.small_benchmarks import Pair

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture(autouse=True)
def quick_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one takes 6 s; ``test_the_server_of_this_environment`` asks it."""
    monkeypatch.setattr(environment, "MAKE_SERVER", "pass")


def by_check(findings: list[Finding]) -> Mapping[str, Finding]:
    return {finding.check: finding for finding in findings}


# --- libraries


def test_this_environment_is_as_this_package_asks() -> None:
    told = by_check(check_environment({}))
    assert {finding.state for finding in told.values()} <= {"ok", "note"}
    assert {"python", "torch", "prefect", "duckdb", "pyarrow", "cpu", "gpu"} <= told.keys()
    assert told["duckdb"].expected == ">=1.4"
    assert "pytest" not in told  # an extra


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("torch>=2.0", "ok"),
        ("torch<2", "problem"),
        ("no-such-package-anywhere>=1", "blocked"),
        ("torch>=99; python_version < '3'", None),
        ("torch>=99; extra == 'dev'", None),
    ],
)
def test_a_package_is_held_to_its_range(
    monkeypatch: pytest.MonkeyPatch, line: str, state: str | None
) -> None:
    monkeypatch.setattr(environment, "requires", lambda _package: [line])
    told = by_check(check_environment({}))
    name = Requirement(line).name
    assert (told[name].state if name in told else None) == state
    if state in ("problem", "blocked"):
        assert name in told[name].remedy


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ImportError('fastapi moved')", "ImportError: fastapi moved"),
        ("import os; os._exit(1)", "no reason given"),
    ],
)
def test_a_server_that_cannot_be_made_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr(environment, "MAKE_SERVER", program)
    finding = by_check(check_environment({}))["Prefect's server"]
    assert (finding.state, finding.examples) == ("problem", (reason,))
    assert "constraints.txt" in finding.remedy


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MAKE_SERVER", "import time; time.sleep(60)")
    monkeypatch.setattr(environment, "SERVER_SECONDS", 0.2)
    finding = by_check(check_environment({}))["Prefect's server"]
    assert finding.state == "problem"
    assert "no answer" in str(finding.found)


@pytest.mark.slow
def test_the_server_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert by_check(check_environment({}))["Prefect's server"].state == "ok"


# --- devices


def test_a_forward_pass_that_is_not_finite_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_embed", lambda *_: torch.full((2, 4), float("nan")))
    assert by_check(check_environment({}))["cpu"].state == "blocked"


def test_the_check_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    check_environment({})
    assert torch.rand(1) == expected


# --- variables


def test_variables_are_told_and_secrets_are_not() -> None:
    told = by_check(
        check_environment(
            {
                "HF_HUB_OFFLINE": "1",
                "PREFECT_API_KEY": "hush",
                "PREFECT_API_URL": "https://me:hush@prefect.example:4200/api?token=hush",
                "HOME": "/root",
            }
        )
    )
    assert told["HF_HUB_OFFLINE"].found == "1"
    assert told["TRANSFORMERS_OFFLINE"].found == "not set"
    assert told["PREFECT_API_KEY"].found == "set"
    assert told["PREFECT_API_URL"].found == "https://prefect.example:4200/api"
    assert "HOME" not in told
    assert "hush" not in repr(told)


# --- the store


def test_a_store_still_to_be_made_is_fine_and_is_not_made(tmp_path: Path) -> None:
    store = tmp_path / "a" / "b"
    told = by_check(check_store(LocalStore(store), bytes_needed=1))
    assert [finding.state for finding in told.values()] == ["ok"] * 3
    assert told["disk, MiB: free, needed"].expected == 1
    assert list(tmp_path.iterdir()) == []


def test_the_holder_of_a_store_is_named(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    with hold(STORE, tmp_path):
        assert holder_of(tmp_path) == str(os.getpid())
        lock = by_check(check_store(LocalStore(tmp_path), bytes_needed=None))["lock"]
        assert (lock.state, lock.found) == ("note", f"held by process {os.getpid()}")
    assert holder_of(tmp_path) is None


def test_a_holder_that_left_no_name_is_unknown_and_asking_keeps_no_lock(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert holder_of(tmp_path) == "unknown"
    assert holder_of(tmp_path) is None
    with hold(STORE, tmp_path):
        pass


def test_a_store_that_cannot_be_locked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_args: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    (tmp_path / "lock").touch()
    monkeypatch.setattr("storage.lock.fcntl.flock", flock)
    lock = by_check(check_store(LocalStore(tmp_path), bytes_needed=None))["lock"]
    assert lock.state == "blocked"
    assert "local disk" in lock.remedy


def test_a_disk_that_is_too_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.store.disk_usage", lambda _path: Usage(0, 0, 5 * 2**20))
    disk = by_check(check_store(LocalStore(tmp_path), bytes_needed=5 * 2**20 + 1))[
        "disk, MiB: free, needed"
    ]
    assert (disk.state, disk.found, disk.expected) == ("blocked", 5, 6)
    assert "--store" in disk.remedy
    assert (
        by_check(check_store(LocalStore(tmp_path), bytes_needed=5 * 2**20))[disk.check].state
        == "ok"
    )


def test_a_file_in_the_stores_place_blocks(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    told = by_check(check_store(LocalStore(tmp_path / "store"), bytes_needed=None))
    assert told[str(tmp_path / "store")].state == "blocked"
    assert told["lock"].state == "blocked"


# --- models


def test_the_shipped_pair_is_fine() -> None:
    findings = check_models(shipped_model("stage1"), shipped_model("stage2"))
    assert [(one.check, one.state) for one in findings] == [
        ("stage1", "ok"),
        ("stage2", "ok"),
        ("pair", "ok"),
    ]
    assert findings[0].found == "stage1, 64 px"


def test_swapped_stages_are_both_named(pair: Pair) -> None:
    findings = check_models(pair.stage2, pair.stage1)
    assert [one.state for one in findings] == ["blocked", "blocked"]
    assert "not a stage 1 model" in str(findings[0].found)


def test_another_visual_encoder_is_no_pair(pair: Pair, tmp_path: Path) -> None:
    tensors = read_tensors(pair.stage2)
    tensors["vision.cls_token"] = tensors["vision.cls_token"] + 1
    write_checkpoint(tmp_path / "other", read_config(pair.stage2), tensors)
    findings = check_models(pair.stage1, tmp_path / "other")
    assert [one.state for one in findings] == ["ok", "ok", "blocked"]
    assert "different visual encoders" in str(findings[2].found)
    assert any("vision.cls_token" in example for example in findings[2].examples)


def test_a_missing_tensor_is_seen_in_the_header(pair: Pair, tmp_path: Path) -> None:
    tensors = read_tensors(pair.stage1)
    del tensors["vision.cls_token"]
    write_checkpoint(tmp_path / "less", read_config(pair.stage1), tensors)
    findings = check_models(tmp_path / "less", pair.stage2)
    assert findings[0].state == "blocked"
    assert any("vision.cls_token" in example for example in findings[0].examples)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_weights_that_are_none_are_refused(
    pair: Pair, tmp_path: Path, content: bytes | None
) -> None:
    shutil.copytree(pair.stage1, tmp_path / "bad")
    weights = tmp_path / "bad" / "model.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    finding = check_models(tmp_path / "bad", pair.stage2)[0]
    assert finding.state == "blocked"
    assert "cannot be read" in str(finding.found)


def test_a_folder_that_is_no_model_is_refused(pair: Pair, tmp_path: Path) -> None:
    finding = check_models(tmp_path, pair.stage2)[0]
    assert (finding.state, finding.found) == ("blocked", "no model at this path")
