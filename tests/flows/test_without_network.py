"""No command reaches for a network unless it is asked to: the kernel ends the process that does."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import without_network
from tests.support.small_benchmarks import Bench
from tests.support.tiny_vlm import write_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() not in without_network.SOCKET,
        reason="it is Linux that looks",
    ),
]
SET_BY_USERS = ("HF_", "TRANSFORMERS_", "CIR_", "PREFECT_", "DO_NOT_TRACK", "NO_PROXY")
"""Whatever here or elsewhere keeps a library from its network, or tells it of one."""


def go(commands: list[list[str]], **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(SET_BY_USERS)
    }
    return subprocess.run(
        [sys.executable, without_network.__file__, json.dumps(commands)],
        env=environment | more,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_and_what_is_asked_of_it_need_no_network(fiq: Bench, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    settings = fiq.arguments(tmp_path / "store")
    data = ["--dataset", "fiq", "--data-root", str(fiq.root)]
    commands = [
        ["plan", *settings],
        ["run", *settings],
        ["report", "--store", store, "--data-root", str(fiq.root)],
        ["sql", "--store", store, "SELECT count(*) FROM rankings"],
        ["export", "--format", "trec", "--store", store],
        ["doctor", *data, "--store", store],
    ]
    done = go(commands)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("store/reports/*/index.html"))


def test_hugging_faces_libraries_look_for_nothing_newer(fiq: Bench, tmp_path: Path) -> None:
    """Than the files of a model that is converted, and opened, by them."""
    write_folder(tmp_path / "hf", "qwen3_vl")
    model = tmp_path / "vlm"
    settings = fiq.arguments(tmp_path / "store")
    commands = [
        ["convert", str(tmp_path / "hf"), str(model), "--prompt", "qwen3-vl-reranker"],
        ["run", *settings, "--category", "dress", "--stage2", str(model)],
    ]
    done = go(commands)
    assert done.returncode == 0, done.stderr


def test_one_that_is_asked_for_is_reached_for(fiq: Bench, tmp_path: Path) -> None:
    """Which shows that the others would have been ended."""
    asked = [*fiq.arguments(tmp_path / "store"), "--engine", "prefect"]
    done = go([["run", *asked]], PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == -signal.SIGSYS
    assert "prefect_api.py" in done.stderr
