"""Which errors may pass though nobody does anything."""

import errno

import pytest

from cir_core.errors import (
    CheckpointRefused,
    CirError,
    OutOfSpace,
    PreflightError,
    ProblemsFound,
    StoreBusy,
    StoreCorrupt,
    StoreFailing,
    UsageError,
    WorkerLost,
    is_transient,
)


def told_of(error: CirError, cause: BaseException) -> CirError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        WorkerLost("a process has died"),
        StoreBusy("another run holds the store"),
        StoreFailing("the object store does not answer"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("timed out"),
        told_of(PreflightError("cannot be read"), OSError(errno.EIO, "Input/output error")),
    ],
    ids=repr,
)
def test_it_may_pass(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        UsageError("no"),
        ProblemsFound("no"),
        PreflightError("no"),
        StoreCorrupt("no"),
        CheckpointRefused("no"),
        OutOfSpace("no"),
        told_of(OutOfSpace("full"), OSError(errno.ENOSPC, "No space left on device")),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("a bug"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_it_needs_somebody(error: BaseException) -> None:
    assert not is_transient(error)
