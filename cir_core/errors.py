"""Every failure a user can cause or meet, as one family of typed errors.

An error says what happened, to which item, the likely cause, and the next command to try.
The terminal prints these four lines and exits with the class's ``exit_code``.
"""

import errno
from typing import Any, ClassVar


class CirError(Exception):
    """Base of all expected failures; anything else that escapes is a bug (exit code 1)."""

    exit_code: ClassVar[int] = 1
    is_transient: ClassVar[bool] = False
    """Whether it may pass though nobody does anything: see the function of this name."""

    def __init__(self, what: str, *, item: str = "", cause: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.item = item
        self.cause = cause
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole from one process to another, whatever a class's ``__init__`` asks for."""
        return _revive, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        """What happened, and a line for each of the others that is told; of several lines, the
        next ones stand below the first."""
        told = (("item:", self.item), ("cause:", self.cause), ("remedy:", self.remedy))
        lines = [f"  {name:7} {text}".replace("\n", f"\n{'':10}") for name, text in told if text]
        return "\n".join([self.what, *lines])

    @property
    def in_a_line(self) -> str:
        """What happened, to what, and why."""
        return ": ".join(filter(None, (self.what, self.item, self.cause)))


def _revive(kind: type[CirError], args: tuple[Any, ...]) -> CirError:
    return kind.__new__(kind, *args)


class UsageError(CirError):
    """The command line or the settings ask for something impossible."""

    exit_code = 2


class ProblemsFound(CirError):
    """Some images or queries cannot be used, and their number is above what the user allowed; or
    a submission has faults."""

    exit_code = 3


class PreflightError(CirError):
    """What the run needs is missing or contradictory; found before any work started."""

    exit_code = 4


class AnnotationError(PreflightError):
    """An annotation file is missing, is not the expected JSON, or names unknown images."""


class StoreBusy(CirError):
    """Another run holds the store, or another training its folder."""

    exit_code = 5
    is_transient = True  # until that one ends


class StoreCorrupt(CirError):
    """A part of the store does not hold the bytes that its manifest promises."""

    exit_code = 6


class CheckpointRefused(CirError):
    """A checkpoint is unreadable, of another architecture or stage, or holds unusable numbers."""

    exit_code = 7


class NonFiniteError(CheckpointRefused):
    """Weights or activations contain NaN or infinity."""


class OutOfSpace(CirError):
    """The disk cannot hold what the run is about to write."""

    exit_code = 8


class StoreFailing(CirError):
    """The disk or the server that has the store fails: what was asked of it may succeed later."""

    exit_code = 11
    is_transient = True


class WorkerLost(CirError):
    """A process that works for this one has died: the machine's doing, not the data's."""

    exit_code = 10
    is_transient = True  # memory that others need now is free later


class ImageProblem(CirError):
    """One image cannot be decoded as published; becomes a row of ``problems``, never a crash.

    ``kind`` is a key of ``REMEDIES``.
    """

    exit_code = 3

    def __init__(self, kind: str, what: str, *, item: str = "", cause: str = "") -> None:
        super().__init__(what, item=item, cause=cause, remedy=REMEDIES[kind])
        self.kind = kind

    def row(self, image_id: str) -> dict[str, str]:
        """This problem as a row of the table ``problems``."""
        return {"item": image_id, "kind": self.kind, "message": self.in_a_line}


REMEDIES = {
    "missing": "put the file in place, or run with --allow-missing N to go on with a short gallery",
    "empty": "download the file again: it has zero bytes",
    "unreadable": "replace the file by a real image; a saved error page is a common cause",
    "truncated": "download the file again: its data ends early",
    "too_large": "shrink the image: more pixels than any photo of these benchmarks has",
    "unsafe_path": "put a regular file inside the data root in its place, or the link where images "
    "lie, at the top",
    "denied": "give the current user read permission",
    "io_error": "check the disk or the network it is on, then run the same command again",
    "unsupported": "save the image with 8 or 16 bits a channel",
    "too_long": "crop the image, or use a stage 2 that pads pictures (docs/models.md)",
}


PASSING = frozenset(
    {
        errno.EIO,  # what a network file system answers while its server is away
        errno.ESTALE,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)
"""Of the operating system's errors those of a network or a device that may be well again soon;
refused, reset and silent connections have classes of their own."""


def is_transient(error: BaseException) -> bool:
    """Whether the same work, some time later, may well succeed though nobody does anything: a lost
    process, a busy store, a network file system that is away for a moment; also where one of ours
    tells in words what such a one has caused. Not what needs somebody, as settings, a full disk,
    damage and problems do, and no bug."""
    if isinstance(error, CirError):
        cause = error.__cause__
        return error.is_transient or (cause is not None and is_transient(cause))
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in PASSING
    return False
