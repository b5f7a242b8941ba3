"""``compare``: runs beside each other."""

import os
from typing import Annotated, Any, Literal

import typer

from flows.comparison_settings import ComparisonSettings
from flows.doors.cli.options import RUN_NAME, Json, flags_of, help_of, options_of, takes
from flows.views.streams import expect_utf8, put, put_json, say, write
from storage.store import open_store

Format = Literal["table", "markdown", "latex", "json"]


@takes(options_of(ComparisonSettings, without={"runs"}), flags_of("data_root", "store"))
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help=help_of(ComparisonSettings, "runs"), **RUN_NAME),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="What to print.")] = "table",
    as_json: Json = False,
    **values: Any,
) -> None:
    """Whether runs differ, by how much, and on which queries.

    Every measure of the protocol: paired randomisation tests with Holm's correction, bootstrap
    intervals, sizes of effects, wins and losses, rank-biased overlap, and the runs that are tied
    with the best. A page shows the queries that differ most; Markdown, LaTeX and JSON lie beside
    it.

    Refuses runs of another protocol, split or gallery, or of other queries.
    """
    from flows.comparing import run_comparison
    from flows.origins import parse_comparison, resolve
    from flows.published import root_of

    flags = {name: values.pop(name) for name in ("data_root", "store")}
    made = run_comparison(
        parse_comparison(runs=runs or (), **values),
        open_store(resolve(flags, os.environ).settings.store),
        lambda dataset: root_of(dataset, flags),
    )
    form = "json" if as_json else format_
    if form == "table":
        _print(made)
        return
    if form == "json":
        put_json(made.summary)
    else:
        expect_utf8()
        write(made.texts[{"markdown": "comparison.md", "latex": "comparison.tex"}[form]])
    say(f"page: {made.files[0]}")


def _print(made: Any) -> None:
    from flows.views.tables import Column, open_console, print_line, print_table

    console = open_console()
    print_line(console, made.told.heading, "bold")
    for warning in made.told.warnings:
        print_line(console, f"WARNING: {warning}", "bold")
    for sentence in made.told.verdict:
        print_line(console, sentence)
    for table in made.told.tables:
        columns = [
            Column(name, right=place >= table.left) for place, name in enumerate(table.headings)
        ]
        section = 1 if len({row[1] for row in table.rows}) < len(table.rows) else None
        print_table(console, columns, table.rows, title=table.title, section_by=section)
    for note in made.told.notes:
        print_line(console, note)
    put(f"page: {made.files[0]}")
