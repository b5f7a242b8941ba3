"""A Prefect server for one run: a process of its own that ends when this one does, however.

Prefect can start one too, but lets it live on when this process is killed.
"""

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cir_core.errors import PreflightError
from flows.engines.prefect_api import fault_of
from storage.atomic import make_folder

START_SECONDS = 180.0
"""With a new database 15 s on a quiet machine, twice that and more on a busy one."""

STOP_SECONDS = 5.0
"""To write what it still holds; the database survives the other way too."""

LOG = "server.log"

BEGIN = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from flows.engines.prefect_server import serve
serve(int(sys.argv[2]))
"""


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """A running server; what reads its standard input's end is over."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Let it end, or kill it. Does nothing the second time."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def start_server(home: Path, seconds: float = START_SECONDS) -> Server:
    """Start a server whose database and log lie in ``home``, and wait for it; the exit of this
    process stops it.

    To be called before Prefect is imported: what is registered first is called last at the exit,
    when Prefect has sent all it has. Raises PreflightError when the server does not answer in time.
    """
    make_folder(home)
    _log.info("starting a Prefect server for this run, in %s", home)
    with socket.create_server(("127.0.0.1", 0)) as bound, (home / LOG).open("wb") as log:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/api"
        server = Server(url, _start_process(bound.fileno(), home, log.fileno()))
    atexit.register(server.stop)
    fault = _wait(server, seconds)
    if fault:
        server.stop()
        raise PreflightError(
            "Prefect's temporary server does not start",
            item=str(home / LOG),
            cause=fault,
            remedy="`cir-pipeline doctor` checks what it needs; --engine in-process works without",
        )
    return server


def _start_process(descriptor: int, home: Path, log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", BEGIN, json.dumps(sys.path), str(descriptor)],
        env=os.environ | {"PREFECT_HOME": str(home.absolute()), "PREFECT_UI_ENABLED": "false"},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        pass_fds=(descriptor,),
        start_new_session=True,  # a terminal's Ctrl-C is for the parent, which reports it there
    )


def _wait(server: Server, seconds: float) -> str:
    """Until it answers: nothing; or why it does not."""
    limit = time.monotonic() + seconds
    fault = "no time to wait for it"
    while server.process.poll() is None and time.monotonic() < limit:
        fault = fault_of(server.url, max(limit - time.monotonic(), 0.1))
        if not fault:
            return ""
        time.sleep(0.1)
    code = server.process.poll()
    if code is None:
        return f"no answer within {seconds:.0f} s: {fault}"
    return f"it ended with exit code {code}"


def serve(descriptor: int) -> None:
    """In a process of its own: serve on this listening socket until told to end, or alone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    with socket.socket(fileno=descriptor) as bound:
        server.run(sockets=[bound])


def _end_with_parent() -> None:
    """The parent holds the other end of this pipe, and nobody writes into it."""
    sys.stdin.buffer.read()
    os._exit(1)
