"""stdout and stderr: results and talk."""

import codecs
import errno
import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import IO, Any, NoReturn

from cir_core.errors import CirError, OutOfSpace, PreflightError
from flows import LAYERS
from flows.views.values import json_text
from storage.atomic import is_full
from tasks.results.markup.visible import visible

DRAWING = {"rich.console", "typer._click.utils"}
"""Modules that write to stdout themselves."""
READER_GONE = 141
"""Exit code: as the shell tells of a program that SIGPIPE has ended (128 + 13)."""

LINES = "\n\t"
"""What talk keeps: errors have several lines."""


def prepare_streams() -> None:
    """Before anything is written or opened: a stream that was closed (``2>&-``) leads nowhere,
    instead of into the next file that happens to get its number; and no character makes a stream
    fail. File names on stdout are the bytes that they are on the disk."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
    # None where the number was closed when Python started
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    codecs.register_error("cir_exact", _file_name_or_escape)
    for stream, errors in ((sys.stdout, "cir_exact"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def prepare_logging(*, verbose: bool) -> None:
    """Log lines to stderr, none of which can steer the terminal."""
    logging.setLogRecordFactory(_VisibleRecord)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for layer in LAYERS:
        logging.getLogger(layer).setLevel(logging.DEBUG if verbose else logging.INFO)


def say(text: str) -> None:
    """Talk, on stderr. When nobody listens any more, the work goes on."""
    with suppress(OSError):
        sys.stderr.write(visible(text, kept=LINES, encoding=sys.stderr.encoding) + "\n")
        sys.stderr.flush()


def put(line: str) -> None:
    """A line of result, on stdout: exact for programs, visible on a terminal."""
    is_seen = sys.stdout.isatty()
    write((visible(line, encoding=sys.stdout.encoding) if is_seen else line) + "\n")


def put_json(value: Any) -> None:
    """A result for programs, as one line."""
    write(json_text(value) + "\n")


def write(text: str, file: IO[str] | None = None) -> None:
    """To stdout, as it is. Ends the process with ``READER_GONE`` when its reader has left. Raises
    OutOfSpace when the disk that it goes to is full, PreflightError when it cannot be written for
    another reason."""
    file = file or sys.stdout
    try:
        file.write(text)
    except OSError as error:
        _give_up(error, file)


def expect_utf8() -> None:
    """What stdout gets from now on is UTF-8 whatever the locale says, unless it is a terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", errors="cir_exact")


@contextmanager
def flushed() -> Iterator[None]:
    """In the end nothing is left in stdout's buffer, however the block ends; raises and ends as
    ``write``, also where typer writes to stdout itself (help, completion). What the block raised
    is told before."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # rich's way to end, by 1
            sys.exit(READER_GONE)
        raise
    except OSError as error:
        if _raised_in(error) in DRAWING:
            _give_up(error, sys.stdout)
        raise
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            _tell(error.__context__)
            _give_up(error, sys.stdout)


def _tell(ended: BaseException | None) -> None:
    """What the work ended with, and what would be lost behind the fault of a stream."""
    if isinstance(ended, CirError):
        say(f"error: {ended}")
    elif isinstance(ended, Exception):
        tell_bug(type(ended), ended, ended.__traceback__)


def tell_bug(
    kind: type[BaseException], error: BaseException, where: TracebackType | None, /
) -> None:
    """A traceback; for ``sys.excepthook``. Messages of libraries hold any data."""
    say("".join(traceback.format_exception(kind, error, where)).rstrip("\n"))


def _raised_in(error: OSError) -> str:
    """The module."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals["__name__"])


def _give_up(error: OSError, file: IO[str]) -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # Python flushes again at exit
    if error.errno == errno.EPIPE:
        sys.exit(READER_GONE)
    full = is_full(error)
    raise (OutOfSpace if full else PreflightError)(
        "the result cannot be written to stdout",
        cause=str(error.strerror),
        remedy=f"what was made is kept: {'free space' if full else 'mend this'} and run the "
        "same command again",
    ) from error


def _file_name_or_escape(error: UnicodeError) -> tuple[bytes, int]:
    """An error handler of codecs: the bytes that Python reads as lone surrogates; escapes for what
    the encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return b"".join(map(_file_byte_or_escape, lacking)), error.end


def _file_byte_or_escape(character: str) -> bytes:
    is_byte = "\udc80" <= character <= "\udcff"
    return character.encode("ascii", "surrogateescape" if is_byte else "backslashreplace")


class _VisibleRecord(logging.LogRecord):
    """Whatever handler and format: Prefect brings its own. A text that stands in a line, such as
    an id, does not begin another, which would read as one of ours."""

    def getMessage(self) -> str:  # noqa: N802
        told = self.args
        if isinstance(told, tuple):
            told = tuple(visible(one) if isinstance(one, str) else one for one in told)
        message = str(self.msg) % told if told else str(self.msg)
        return visible(message, kept=LINES)
