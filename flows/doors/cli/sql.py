"""``sql``: the results, asked by statements on the command line, in a pipe or in a shell."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cir_core.errors import UsageError
from flows.doors.cli.options import Json, flags_of, takes
from flows.doors.cli.texts import text
from storage.store import open_store

if TYPE_CHECKING:
    from storage.answers import OpenCatalog

Form = Literal["table", "csv", "json", "jsonl", "markdown", "parquet"]

ENDINGS: dict[str, Form] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".md": "markdown",
    ".parquet": "parquet",
}
"""Of files, and the forms that they say."""


@takes(flags_of("store"))
def sql(
    statement: Annotated[
        str | None,
        typer.Argument(
            help="One read-only statement; with --schema, a table's or a view's name.",
            show_default="what is typed, or piped",
            parser=text,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Rows at most.", show_default="1000 of a table, all of the rest"),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="How rows are told.", show_default="table, or as --out ends"),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
    as_json: Json = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the rows into this file.", show_default="they are printed"),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Tell what there is: tables, views; or columns.")
    ] = False,
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Let the statement read and write other files.")
    ] = False,
    **flags: Any,
) -> None:
    """Ask the results in SQL.

    With a statement it is answered. Without one, a terminal gets a shell (.help tells its
    commands, Ctrl-D ends it), and the statements of a pipe or a file are answered in their order,
    up to one that fails.

    `sql --schema` lists the tables and views of the catalog (DuckDB), `sql --schema recall` the
    columns of one, each with what it means.

    Tables are for eyes; the other forms hold every value exactly.
    """
    from flows.origins import resolve
    from flows.settings import in_home
    from storage.answers import reading
    from storage.catalog import CATALOG_FILE

    file = None if out is None else in_home(out)
    told = _form(form, file, as_csv=as_csv, as_json=as_json)
    settings = resolve(flags, os.environ).settings
    path = open_store(settings.store).local(CATALOG_FILE)
    with reading(path, files=allow_files) as catalog:
        if not schema and statement is None and sys.stdin.isatty() and sys.stdout.isatty():
            _converse(catalog, told, file, limit)
            return
        if schema and file is None:
            _tell_schema(catalog, statement, told, limit)
            return
        statements = _statements(catalog, statement, schema=schema)
        for one in statements if file is None else _alone(statements):
            _answer(catalog, one, told, limit, file)


def _form(form: Form | None, file: Path | None, *, as_csv: bool, as_json: bool) -> Form:
    """The one that is asked for. Raises UsageError for several, and what has no place."""
    asked: list[Form] = [form] if form else []
    asked += ["csv"] if as_csv else []
    asked += ["json"] if as_json else []
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} are two forms", remedy="leave one of them out")
    if file is None:
        if asked == ["parquet"]:
            raise UsageError("Parquet is no text", remedy="name a file with --out")
        return asked[0] if asked else "table"
    told = asked[0] if asked else ENDINGS.get(file.suffix.casefold())
    if told is None or told == "table":
        raise UsageError(
            "the form of the file is not told",
            item=str(file),
            remedy=f"let its name end in {', '.join(ENDINGS)}, or pass --format",
        )
    return told


def _converse(catalog: "OpenCatalog", form: Form, file: Path | None, limit: int | None) -> None:
    from flows.views.shell import Shell

    if file is not None:
        raise UsageError("a shell's answers have no place in one file", remedy="say a statement")
    Shell(catalog, form, limit).run()


def _tell_schema(catalog: "OpenCatalog", name: str | None, form: Form, limit: int | None) -> None:
    from flows.views.schema import print_columns, print_tables

    if name is None:
        print_tables(catalog, form, limit)
    else:
        print_columns(catalog, name, form, limit)


def _statements(catalog: "OpenCatalog", statement: str | None, *, schema: bool) -> Iterator[str]:
    """What is asked for, or what stdin holds. Raises UsageError when that is nothing, or no
    text."""
    from storage.descriptions import columns_sql, find_table, tables_sql

    if schema:
        named = None if statement is None else find_table(catalog, statement)["name"]
        yield tables_sql() if named is None else columns_sql(named)
    elif statement is not None:
        yield statement
    else:
        try:
            piped = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise UsageError(
                "what is piped is no text",
                cause=f"it is not UTF-8: {error}",
                remedy="write it in UTF-8",
            ) from error
        is_empty = True
        for one in catalog.statements(piped):
            is_empty = False
            yield one
        if is_empty:
            raise UsageError(
                "there is no statement",
                remedy="say one, pipe some in, or call `cir-pipeline sql` on a terminal",
            )


def _alone(statements: Iterator[str]) -> list[str]:
    found = list(statements)
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} statements have no place in one file", remedy="ask one at a time"
        )
    return found


def _answer(
    catalog: "OpenCatalog", statement: str, form: Form, limit: int | None, file: Path | None
) -> None:
    from flows.views.answers import print_answer, save_answer

    if form == "parquet":
        assert file is not None
        catalog.save(statement, file, limit)
        return
    with catalog.ask(statement) as answer:
        if file is None:
            print_answer(answer, form, limit)
        else:
            save_answer(answer, form, limit, file)
