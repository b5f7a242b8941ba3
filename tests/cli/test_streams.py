"""What reaches stdout, wherever it leads: all of it, exactly, or an exit code tells otherwise."""

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, get_args, get_origin, get_type_hints

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.models import ParameterInfo

from cir_core.errors import OutOfSpace, ProblemsFound, UsageError
from flows.doors.cli import main
from flows.doors.cli.app import COMMANDS
from flows.doors.cli.texts import text
from flows.views.streams import flushed
from storage.catalog import CATALOG_FILE

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from flows.doors.cli import main; main()"]
MUCH = "SELECT range AS n, 'two words' AS t, DATE 'infinity' AS d FROM range(900)"
PATHS_TOO = {"dataset", "queries", "images", "gallery", "recipe", "validate_on"}
"""Names or paths: bytes, as paths are."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [*os.environ]:
        if name.startswith("CIR_") or name == "PREFECT_API_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIR_STORE", str(tmp_path))
    with duckdb.connect(str(tmp_path / CATALOG_FILE)) as connection:
        connection.execute("CREATE TABLE words AS SELECT 'é 中' AS word")
    return tmp_path


@pytest.fixture
def own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def started(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    """The console script in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.run(
        [*PROGRAM, *arguments], env=environment, check=False, timeout=60, **options
    )


FORMS = [
    ["sql", MUCH],
    ["sql", MUCH, "--csv"],
    ["sql", MUCH, "--json"],
    ["config", "show"],
    ["config", "show", "--json"],
    ["protocols"],
    ["run", "--help"],
]


def unwritable(where: str) -> int:
    if where == "full":
        return os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.usefixtures("store", "own_signals")
@pytest.mark.parametrize("arguments", FORMS, ids=" ".join)
@pytest.mark.parametrize(("where", "code"), [("full", 8), ("gone", 141)])
def test_what_cannot_be_written_ends_by_its_exit_code(
    arguments: list[str], where: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with os.fdopen(unwritable(where), "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "argv", ["cir-pipeline", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == code


def fail(stdout: IO[str], error: Exception) -> None:
    with flushed():
        stdout.write("a result")
        raise error


@pytest.mark.parametrize("error", [ProblemsFound("it is short"), KeyError("it is short")])
def test_what_the_work_ended_with_is_told_though_stdout_fails_too(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with pytest.raises(OutOfSpace):
            fail(full, error)
    assert "it is short" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["sql", MUCH], ["--show-completion", "bash"]])
def test_a_full_disk_is_told_and_no_bug(store: Path, arguments: list[str]) -> None:
    is_named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # no shell may have started us
    with open("/dev/full", "w") as full:
        ended = started(*arguments, stdout=full, stderr=subprocess.PIPE, env=is_named)
    assert ended.returncode == 8
    assert ended.stderr.startswith(b"error: the result cannot be written to stdout\n  cause:")


def test_a_reader_that_has_seen_enough_ends_the_query(store: Path) -> None:
    sql = "SELECT * FROM range(100000000)"
    with subprocess.Popen(
        [*PROGRAM, "sql", sql, "--csv"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        assert asked.stdout.readline() == b"range\n"
        asked.stdout.close()
        assert asked.stderr.read() == b""
        assert asked.wait(timeout=60) == 141


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(store: Path, closed: str) -> None:
    command = f'exec "$@" {closed}'
    ended = subprocess.run(
        ["sh", "-c", command, "sh", *PROGRAM, "sql", "FROM words", "--csv"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == (b"" if " >&-" in closed else WORDS)


WORDS = "word\né 中\n".encode()
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_under_an_ascii_locale_sql_is_understood_and_csv_is_utf8(store: Path) -> None:
    where = "FROM words WHERE word = 'é 中'"
    asked = [
        started("sql", where, *form, env=ASCII, capture_output=True) for form in ([], ["--csv"])
    ]
    assert [(one.returncode, one.stderr) for one in asked] == [(0, b"")] * 2
    assert rb"| \xe9 \u4e2d |" in asked[0].stdout
    assert asked[0].stdout.isascii()
    assert asked[1].stdout == WORDS


def test_on_a_narrow_terminal_cells_are_folded_and_nothing_is_lost(store: Path) -> None:
    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    long = "".join(map(chr, range(ord("a"), ord("z") + 1))) * 2
    sql = f"SELECT '{long}' AS first, '{long.upper()}' AS second"
    wide = {"COLUMNS": "", "LINES": ""}  # which would count over the terminal
    ended = started("sql", sql, env=wide, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    drawn = os.read(main_end, 1 << 16).decode()
    os.close(main_end)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines()  # headings are bold
    assert ended.returncode == 0
    assert all(len(line) <= 40 for line in lines)
    folded = [line.split("│") for line in lines if line.startswith("│")]
    assert "".join(cells[1].strip() for cells in folded) == long
    assert "".join(cells[2].strip() for cells in folded) == long.upper()


# --- what ``sql`` prints, in this process


@pytest.fixture
def sql(
    store: Path,
    own_signals: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Any:
    def ask(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["cir-pipeline", "sql", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capfd.readouterr()

    return ask


def test_limits_are_of_every_form(sql: Any) -> None:
    statement = "SELECT range AS n FROM range(2000)"
    assert sql(statement, "--csv", "--limit", "2") == (0, "n\n0\n1\n", "")
    assert sql(statement, "--json", "--limit", "2") == (0, '[{"n": 0},\n{"n": 1}]\n', "")
    code, table, told = sql(statement, "--limit", "2")
    assert (code, table.count("\n"), told[:16]) == (0, 6, "the first 2 rows")
    assert sql(statement)[1].count("\n") == 1004
    assert len(json.loads(sql(statement, "--json")[1])) == 2000


def test_csv_tells_null_from_an_empty_text(sql: Any) -> None:
    statement = "SELECT NULL AS a, '' AS a, 'x,\"y\"' AS b, [1, NULL] AS c"
    assert sql(statement, "--csv") == (0, 'a,a_1,b,c\n,"","x,""y""","[1, null]"\n', "")


def test_other_files_are_denied_unless_they_are_allowed(sql: Any, store: Path) -> None:
    (store / "a.csv").write_text("x\n7\n")
    statement = f"SELECT * FROM '{store / 'a.csv'}'"
    code, out, told = sql(statement, "--csv")
    assert (code, out) == (4, "")
    assert "cir-pipeline sql --allow-files" in told
    assert sql(statement, "--csv", "--allow-files") == (0, "x\n7\n", "")


def test_what_is_piped_is_answered_statement_by_statement(
    sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped(content: bytes, *arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        told: tuple[object, str, str] = sql(*arguments)
        return told

    assert piped("FROM words; SELECT ';' AS é -- ;\n".encode(), "--csv") == (
        *(0, "word\né 中\né\n;\n", ""),
    )
    code, out, told = piped(b"SELECT 1 AS a; SELECT x; SELECT 2 AS b", "--csv")
    assert (code, out) == (4, "a\n1\n")
    assert "error: the query failed" in told
    code, out, told = piped(b" -- nothing\n")
    assert (code, out) == (2, "")
    assert "there is no statement" in told
    assert piped(b"\xff")[0] == 2


def test_a_file_has_the_form_that_its_name_says(sql: Any, store: Path) -> None:
    for name, content in {
        "a.csv": 'n,t\n1,"é, 中"\n',
        "a.JSON": '[{"n": 1, "t": "\\u00e9, \\u4e2d"}]\n',
        "a.jsonl": '{"n": 1, "t": "\\u00e9, \\u4e2d"}\n',
        "a.md": "| n | t |\n| --- | --- |\n| 1 | é, 中 |\n",
    }.items():
        assert sql("SELECT 1 AS n, 'é, 中' AS t", "--out", str(store / name)) == (0, "", "")
        assert (store / name).read_text("utf-8") == content
    assert sql("FROM words", "--out", "a.parquet") == (0, "", "")
    assert pq.read_table(store / "a.parquet").to_pylist() == [{"word": "é 中"}]
    assert sql("FROM words", "--out", "b", "--format", "parquet")[0] == 0
    assert (store / "b").read_bytes()[:4] == b"PAR1"
    assert sql("FROM words", "--format", "jsonl")[1] == '{"word": "\\u00e9 \\u4e2d"}\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["FROM words", "--csv", "--json"],
        ["FROM words", "--csv", "--format", "csv"],
        ["FROM words", "--format", "parquet"],
        ["FROM words", "--out", "a"],
        ["FROM words", "--out", "a.csv", "--format", "table"],
        ["nothing", "--schema"],
    ],
    ids=" ".join,
)
def test_forms_that_contradict_each_other_are_refused(
    sql: Any, store: Path, arguments: list[str]
) -> None:
    code, out, told = sql(*arguments)
    assert (code, out) == (2, "")
    assert "remedy:" in told
    assert not (store / "a").exists()


def test_the_schema_tells_what_is_there(sql: Any) -> None:
    code, out, _ = sql("--schema", "--csv")
    assert (code, out) == (0, "kind,name,rows,about\ntable,words,1,\n")
    assert sql("--schema", "WORDS", "--csv")[1] == "column,type,about\nword,VARCHAR,\n"


# --- texts among the arguments


def test_a_text_is_utf8_or_refused() -> None:
    assert text(os.fsdecode("é 中".encode())) == "é 中"
    with pytest.raises(UsageError, match="an argument is no text") as caught:
        text(os.fsdecode(b"a\xff"))
    assert "at byte 1" in caught.value.cause


def test_every_argument_that_is_no_path_is_read_as_a_text() -> None:
    unread = set()
    for command in COMMANDS.values():
        for name, hint in get_type_hints(command.load(), include_extras=True).items():
            if get_origin(hint) is Annotated and str in {get_args(hint)[0], *inner(hint)}:
                infos = [one for one in hint.__metadata__ if isinstance(one, ParameterInfo)]
                unread |= {name for one in infos if one.parser is not text}
    assert unread == PATHS_TOO


def inner(hint: Any) -> set[Any]:
    """What a type is made of, without the metadata."""
    parts = get_args(get_args(hint)[0])
    return {leaf for part in parts for leaf in (part, *get_args(part))}
