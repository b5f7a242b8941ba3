"""However the process that started it ends, a run's own Prefect server ends too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cir_core.errors import PreflightError
from flows.engines import prefect_server
from flows.engines.prefect_api import fault_of
from flows.engines.prefect_server import LOG, start_server
from tests.support.processes import is_running, nobody_stays

QUICK = """
import json, socket, sys, threading
sys.path[:] = json.loads(sys.argv[1])
from http.server import BaseHTTPRequestHandler, HTTPServer
from flows.engines.prefect_server import _end_with_parent
threading.Thread(target=_end_with_parent, daemon=True).start()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"true")
server = HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(sys.argv[2]))
server.serve_forever()
"""
"""In place of Prefect's server, which takes 15 s and more to start."""

PARENT = """
import sys, time
from pathlib import Path
from flows.engines import prefect_server
prefect_server.BEGIN = sys.argv[2]
print(prefect_server.start_server(Path(sys.argv[1])).process.pid, flush=True)
if len(sys.argv) == 3:
    time.sleep(60)
"""


def wait_until_gone(pid: int) -> None:
    limit = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not is_running(pid)


def test_a_server_answers_until_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prefect_server, "BEGIN", QUICK)
    with nobody_stays():
        server = start_server(tmp_path / "home")
        assert fault_of(server.url) == ""
        server.stop()
        assert fault_of(server.url) == "Connection refused"
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_a_server_ends_with_its_parent(tmp_path: Path, number: signal.Signals | None) -> None:
    arguments = [] if number else ["and end"]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), QUICK, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if number:
            assert is_running(pid)
            os.killpg(parent.pid, number)
        parent.wait(30)
    wait_until_gone(pid)


@pytest.mark.parametrize(
    ("program", "seconds", "cause"),
    [
        ("raise SystemExit(3)", 20.0, "exit code 3"),
        ("import time; time.sleep(60)", 0.5, "no answer within 0 s: timed out"),
    ],
)
def test_a_server_that_does_not_start_is_told_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, seconds: float, cause: str
) -> None:
    monkeypatch.setattr(prefect_server, "BEGIN", program)
    with nobody_stays(), pytest.raises(PreflightError) as caught:
        start_server(tmp_path, seconds)
    assert cause in caught.value.cause
    assert caught.value.item == str(tmp_path / LOG)
    assert "--engine in-process" in caught.value.remedy
