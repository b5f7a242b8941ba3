"""The shell of ``sql``, as a person types into it."""

import io
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.views.shell import Shell
from storage import answers
from storage.answers import Answer, OpenCatalog, reading
from storage.catalog import write_catalog
from storage.catalog_tables import CATALOG
from tests.support.made_catalogs import two_categories


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shell") / "cir.duckdb"
    write_catalog(path, [two_categories()])
    return path


@pytest.fixture
def catalog(path: Path) -> Iterator[OpenCatalog]:
    with reading(path) as opened:
        yield opened


class Typed:
    """What the shell says to lines that are typed one after the other."""

    def __init__(
        self,
        catalog: OpenCatalog,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._shell, self._capsys = Shell(catalog, "csv", None), capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *lines: str) -> tuple[str, str]:
        self._monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{one}\n" for one in lines)))
        self._shell.run()
        out, told = self._capsys.readouterr()
        return out.replace("...> ", "").replace("sql> ", ""), told


@pytest.fixture
def typed(
    catalog: OpenCatalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    return Typed(catalog, monkeypatch, capsys)


def test_statements_have_several_lines_and_several_stand_on_one(typed: Typed) -> None:
    out, told = typed("SELECT 1 AS a,", "  ';' AS b", "; SELECT 2 AS c; -- both", "", "SELECT 3")
    assert out == "a,b\n1,;\nc\n2\n\n"  # the last is not ended
    assert "read only" in told


def test_mistakes_are_told_and_end_nothing(typed: Typed) -> None:
    out, told = typed(
        *("SELEC 1;", "DROP TABLE runs;", "FROM nothing;", ".x", ".schema run"),
        *("SELECT '\udcff';", "SELECT 4;"),
    )
    assert out == "4\n4\n\n"
    assert told.count("error: the query failed") == 3
    assert "no such command" in told
    assert "it is not UTF-8" in told
    assert "there is no table or view 'run'" in told
    assert "runs" in told


def test_its_commands_tell_what_is_there(typed: Typed) -> None:
    out, _ = typed(".tables")
    tables = [line.split(",")[1] for line in out.splitlines() if line.startswith("table,")]
    assert sorted(tables) == sorted(CATALOG)
    assert "view,coverage,,Share of queries with a target" in out
    out, _ = typed(".schema COVERAGE")
    assert "coverage,DOUBLE,a fraction\nn,BIGINT,queries behind it\n" in out
    out, _ = typed(".schema")
    assert "ties,mrr,DOUBLE," in out
    out, _ = typed(".help", ".quit", "SELECT 5;")
    assert ".schema NAME" in out
    assert "5" not in out


def test_what_is_there_is_drawn_in_short_and_one_of_it_whole(
    catalog: OpenCatalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shell = Shell(catalog, "table", None)
    shell.take(".tables")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 160
    (line,) = [one for one in lines if " k_curve " in one]
    assert "had stage 1 kept fewer candidates │" in " ".join(line.split())
    shell.take(".schema K_CURVE")
    told, _, drawn = capsys.readouterr().out.partition("┏")
    assert max(map(len, told.splitlines())) <= 80
    assert told.startswith("view k_curve\nRecall@k and its ceiling")
    assert "Nothing is scored again" in " ".join(told.split())
    assert "pairs" in drawn


def test_help_has_lines_on_a_terminal(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a terminal is shown of one line has its line breaks escaped."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out, _ = typed(".help")
    assert "\n.quit " in out
    assert "\\n" not in out


def test_ctrl_c_drops_a_statement_or_stops_an_answer_and_ctrl_d_leaves(
    catalog: OpenCatalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: Iterator[str | type[BaseException]] = iter(
        ["SELECT dropped", KeyboardInterrupt, "SELECT 42 AS n;", "SELECT 7 AS n;", EOFError]
    )
    prompts, before = [], signal.getsignal(signal.SIGINT)

    def typed(prompt: str) -> str:
        prompts.append(prompt)
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    def interrupted(connection: object, sql: str) -> Answer:
        if "42" in sql:
            raise RuntimeError("Query interrupted")
        return answered(connection, sql)

    answered: Any = answers._answer
    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(answers, "_answer", interrupted)
    Shell(catalog, "csv", None).run()
    assert prompts == ["sql> ", "...> ", "sql> ", "sql> ", "sql> "]
    assert capsys.readouterr().out == "\n\nn\n7\n\n"
    assert signal.getsignal(signal.SIGINT) == before
