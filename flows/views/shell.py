"""A shell over an open catalog: statements, one after the other, which change nothing."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cir_core.errors import CirError, UsageError
from flows.views.answers import print_answer
from flows.views.schema import print_columns, print_tables
from flows.views.streams import put, say
from storage.answers import OpenCatalog
from storage.statements import is_ended

HELP = """\
A statement ends with a semicolon, and may have several lines.
.tables        tables and views, and what they hold
.schema        all their columns; .schema NAME those of one
.help          this
.quit          leave, as Ctrl-D does. Ctrl-C drops a statement, or stops an answer"""


class Shell:
    """Asks a person, on a terminal. Mistakes are told and end nothing."""

    def __init__(self, catalog: OpenCatalog, form: str, limit: int | None) -> None:
        self._catalog, self._form, self._limit = catalog, form, limit
        self._is_over = False

    def run(self) -> None:
        """Until ``.quit``, or the end of what is typed."""
        say(f"{self._catalog.path}: read only; .help tells more, .tables what is there")
        statement = ""
        with _interruptible(), _line_editing(self._words()):
            while not self._is_over:
                try:
                    statement += input("...> " if statement else "sql> ") + "\n"
                    statement = self.take(statement)
                except EOFError:
                    put("")
                    return
                except KeyboardInterrupt:
                    put("")
                    statement = ""

    def take(self, typed: str) -> str:
        """Answer what was typed, and return what of it is not ended yet."""
        if not typed.strip() or not self._is_text(typed):
            return ""
        if typed.lstrip().startswith("."):
            self._try(self._command, typed.strip())
            return ""
        if not is_ended(typed):
            return typed
        self._try(self._answer, typed)
        return ""

    def _is_text(self, typed: str) -> bool:
        """Bytes that are not UTF-8 come as lone surrogates, which DuckDB does not take."""
        try:
            typed.encode()
        except UnicodeEncodeError:
            say("error: what is typed is no text: it is not UTF-8")
            return False
        return True

    def _try(self, do: Callable[[str], None], text: str) -> None:
        try:
            do(text)
        except CirError as error:
            say(f"error: {error}")

    def _answer(self, text: str) -> None:
        for statement in self._catalog.statements(text):
            with self._catalog.ask(statement) as answer:
                print_answer(answer, self._form, self._limit)

    def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name in (".quit", ".exit"):
            self._is_over = True
        elif name == ".help":
            for line in HELP.splitlines():
                put(line)
        elif name == ".tables":
            print_tables(self._catalog, self._form, self._limit)
        elif name == ".schema":
            named = rest.strip().rstrip(";") or None
            print_columns(self._catalog, named, self._form, self._limit)
        else:
            raise UsageError("there is no such command", item=text, remedy=".help lists them")

    def _words(self) -> list[str]:
        names = self._catalog.rows(
            "SELECT DISTINCT unnest([table_name, column_name]) AS name FROM duckdb_columns() "
            "WHERE NOT internal ORDER BY name"
        )
        return [".tables", ".schema", ".help", ".quit", *(row["name"] for row in names)]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt here, and what it was before afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _line_editing(words: Sequence[str]) -> Iterator[None]:
    """Arrows, a history in memory and Tab, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return

    def complete(begun: str, place: int) -> str | None:
        matching = [word for word in words if word.startswith(begun)]
        return matching[place] if place < len(matching) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n,;()=<>'\"")
    readline.parse_and_bind("tab: complete")
    readline.set_auto_history(True)
    try:
        yield
    finally:
        readline.set_completer(None)
