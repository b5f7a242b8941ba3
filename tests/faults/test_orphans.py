"""However the process that they work for ends, worker processes end too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.processes import children, is_running

ROOT = Path(__file__).parents[2]

PARENT = """
import signal, sys, time
from pathlib import Path
from storage.sources.images import sha256_of_bytes
from cir_core.layers.preprocess import Preprocess
from tasks.feed.decode import ImageFile
from tasks.feed.workers import decoded
assert "torch" not in sys.modules, "workers would import it too"
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
root = Path(sys.argv[1])
file = ImageFile("a", "a.png", sha256_of_bytes((root / "a.png").read_bytes()))
with decoded([[file]] * 50, root, Preprocess(16), workers=2) as crops:
    next(crops)
    print("decoding", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    pixels = np.zeros((20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "decoding\n"
        workers = children(parent.pid)
        assert len(workers) == 2
        if number == signal.SIGINT:  # a terminal sends it to all of them
            os.killpg(parent.pid, number)
        else:
            parent.send_signal(number)
        told = parent.communicate(timeout=30)[1]
    assert parent.returncode == -number, told
    assert told.count("Traceback") == (number == signal.SIGINT), told
    limit = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not any(map(is_running, workers))
