"""Open files: a process may have so many, and so may the system."""

import errno
import os
import resource

from cir_core.errors import PreflightError

NUMBERS = (errno.EMFILE, errno.ENFILE)


def out_of_descriptors(error: BaseException) -> PreflightError | None:
    """What to tell of an error that says that no further file can be opened; None of any other.
    Where one of a library tells no number, its words are looked at."""
    if not says(error, *NUMBERS):
        return None
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    cause = getattr(error, "strerror", None) or str(error)
    return PreflightError(
        "no further file can be opened",
        item=str(getattr(error, "filename", None) or ""),
        cause=f"{cause}; a process may have {most} open (ulimit -n)",
        remedy="raise that (ulimit -n 1024), or end what else has files open, then run the same "
        "command again: what is there is kept",
    )


def says(error: BaseException, *numbers: int) -> bool:
    """Whether it is one of the system's errors. Libraries raise types of their own, and keep only
    the words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return any(os.strerror(number) in str(error) for number in numbers)
