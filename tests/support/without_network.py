"""A script of its own: commands of the console script, one after another, in a process that the
kernel ends at the first socket of a network, whoever opens it: Python, a library's machine code, or
a process that it starts. Sockets between processes of one machine (AF_UNIX) are none. One of TCP
over IPv6 may be opened, since libraries that are imported look whether that exists; the first look
for a host's address still ends the process, and so does Python where it would connect one.

    python without_network.py '[["run", "--dataset", "demo"], ["sql", "SELECT 1"]]'

Exits as the first that fails; that ``doctor`` finds something wanting is no failure.
"""

import ctypes
import json
import os
import platform
import signal
import socket
import struct
import sys
import traceback
from typing import Any

SOCKET = {"x86_64": 41, "aarch64": 198}
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _FAMILY, _TYPE = 0, 16, 24
_NO_STREAM = 2
"""A bit of every other type."""
_ALLOW, _KILL_PROCESS = 0x7FFF_0000, 0x8000_0000


def end_at_a_network() -> None:
    steps = [
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 1, 0, SOCKET[platform.machine()]),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FAMILY),
        (_EQUAL, 0, 1, socket.AF_UNIX),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 3, socket.AF_INET6),
        (_LOAD, 0, 0, _TYPE),
        (_ANY_BIT, 1, 0, _NO_STREAM),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    assert libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0) == 0
    sys.addaudithook(_end)


def _end(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.__new__" and arguments[1] == socket.AF_INET:
        traceback.print_stack()  # the kernel says nothing
    if event == "socket.connect" and arguments[0].family != socket.AF_UNIX:
        traceback.print_stack()
        os.kill(os.getpid(), signal.SIGSYS)


def call(words: list[str]) -> None:
    from cir_core.errors import PreflightError
    from flows.doors.cli import main

    sys.argv = ["cir-pipeline", *words]
    fine = (0, PreflightError.exit_code) if words[0] == "doctor" else (0,)
    try:
        main()
    except SystemExit as end:
        if end.code not in fine:
            raise


if __name__ == "__main__":
    end_at_a_network()
    import tasks.planning.timing

    tasks.planning.timing.SECONDS = 0.02
    for words in json.loads(sys.argv[1]):
        call(words)
