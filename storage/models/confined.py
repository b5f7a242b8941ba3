"""A script of its own: run another script, which can start and end no process, open no socket, and
write below one folder alone, files of so many bytes, for so many seconds of processor time.

    python -I confined.py FOLDER BYTES SECONDS SCRIPT [ARGUMENT ...]

Linux's kernel holds to that, whatever machine code comes to run here: seccomp refuses the system
calls, Landlock the files. Neither needs a privilege, and neither can be undone in this process.
Where a kernel or another system has none of them, bytes and seconds are limited all the same.
"""

import ctypes
import errno
import os
import platform
import resource
import runpy
import struct
import sys
from dataclasses import dataclass

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/filter.h
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _SECCOMP_FILTER = 38, 22, 2
_KILL, _REFUSE, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FLAGS_AT = 0, 4, 16
"""Of struct seccomp_data; the flags are the lower half of the first argument of ``clone``."""
_CLONE_THREAD = 0x0001_0000
_OTHER_NUMBERS = 0x4000_0000
"""From here on x86-64 has its calls a second time (x32)."""


@dataclass(frozen=True)
class _Calls:
    """A processor's numbers of system calls (asm/unistd.h)."""

    architecture: int
    refused: tuple[int, ...]
    clone: int


_CALLS = {
    # fork, vfork, execve, execveat; kill, pidfd_send_signal, ptrace, process_vm_writev;
    # socket, socketpair; io_uring_setup, a way around
    "x86_64": _Calls(0xC000_003E, (57, 58, 59, 322, 62, 424, 101, 311, 41, 53, 425), clone=56),
    "aarch64": _Calls(0xC000_00B7, (221, 281, 129, 424, 117, 271, 198, 199, 425), clone=220),
}
_CLONE3 = 435
"""Its flags lie where no filter can look; without it, C libraries start threads with ``clone``."""

# linux/landlock.h; its numbers are the same on all processors
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _BENEATH_PATH, _TRUNCATES = 1, 1, 3
_EXECUTE, _WRITES, _TRUNCATE = 1 << 0, (1 << 1) | 0x1FF0, 1 << 14
"""Writing is to write, remove and make whatever kind of file; truncating came later."""


def limit(kind: int, most: int) -> None:
    """One of this process's resources, for good, or less where it is limited to less. By one more,
    since the end of processor time has a signal of its own before that."""
    hard = resource.getrlimit(kind)[1]
    hardest = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(kind, (min(most, hardest), min(most + 1, hardest)))


def confine(folder: str) -> tuple[str, ...]:
    """This process, from here on; returns what the kernel holds it to, of "processes" and "network"
    (together) and "files"."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return ()
    held = ("files",) if _write_below(libc, folder) else ()
    return (*held, "processes", "network") if _refuse_calls(libc) else held


def _write_below(libc: ctypes.CDLL, folder: str) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    writes = _WRITES | (_TRUNCATE if version >= _TRUNCATES else 0)
    ruleset = libc.syscall(_CREATE_RULESET, struct.pack("=Q", _EXECUTE | writes), 8, 0)
    if ruleset < 0:
        return False
    beneath = os.open(folder, os.O_PATH)
    rule = struct.pack("=Qi", writes, beneath)
    done = libc.syscall(_ADD_RULE, ruleset, _BENEATH_PATH, rule, 0) or libc.syscall(
        _RESTRICT_SELF, ruleset, 0
    )
    os.close(beneath)
    os.close(ruleset)
    return done == 0


def _refuse_calls(libc: ctypes.CDLL) -> bool:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return False
    steps = ctypes.create_string_buffer(_filter(calls))
    program = struct.pack("@HP", (len(steps) - 1) // 8, ctypes.addressof(steps))
    return libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, program, 0, 0) == 0


def _filter(calls: _Calls) -> bytes:
    """A program of Berkeley's packet filter, as the kernel wants one. A step is an operation, how
    many steps to skip when it is true and when it is not, and a number."""
    refuse = _REFUSE | errno.EPERM
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, calls.architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _OTHER_NUMBERS),
        (_RETURN, 0, 0, refuse),
    ]
    for number in calls.refused:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    steps += [
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
        (_EQUAL, 1, 0, calls.clone),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FLAGS_AT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, refuse),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


if __name__ == "__main__":
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_FSIZE, int(sys.argv[2]))
    limit(resource.RLIMIT_CPU, int(sys.argv[3]))
    confine(sys.argv[1])
    sys.argv = sys.argv[4:]
    runpy.run_path(sys.argv[0], run_name="__main__")
