"""Several processes share a batch: the gradient is that of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from tests.support.tolerances import LAW

ROOT = Path(__file__).parents[2]


def together(processes: int, file: Path) -> dict[str, torch.Tensor]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true",
    }
    command = [sys.executable, "-m", "tests.support.training_process", str(file)]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=shared | {"RANK": str(n), "LOCAL_RANK": str(n)})
        for n in range(processes)
    ]
    assert [process.wait(timeout=240) for process in started] == [0] * processes
    found: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return found


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Four rows in the batch, two a process, one at a time."""
    one, two = together(1, tmp_path / "one.pt"), together(2, tmp_path / "two.pt")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=LAW)
