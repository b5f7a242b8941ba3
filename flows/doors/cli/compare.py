"""``compare``: runs beside each other."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cir_core.submissions.formats import Stage
from flows.doors.cli.completion import run_ids
from flows.doors.cli.options import Json, flags_of, takes
from flows.doors.cli.texts import text
from flows.views.streams import expect_utf8, put, put_json, say, write
from storage.store import open_store

Format = Literal["table", "markdown", "latex", "json"]


@takes(flags_of("data_root", "store"))
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, or first digits of ids, of two runs or more; the first is compared with "
            "each.",
            autocompletion=run_ids,
            parser=text,
        ),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            help="Beside these, the runs that have this tag; all of them, if repeated.",
            parser=text,
        ),
    ] = None,
    stage: Annotated[
        Stage | None,
        typer.Option(help="Whose order.", show_default="each run's last"),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Also runs of another protocol, split or gallery: the queries that they share.",
        ),
    ] = False,
    format_: Annotated[Format, typer.Option("--format", help="What to print.")] = "table",
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Of tests that are drawn.", show_default="19999"),
    ] = None,
    persistence: Annotated[
        float | None,
        typer.Option(
            "--persistence",
            min=0.01,
            max=0.999,
            help="p of rank-biased overlap: near 1 for deep lists.",
            show_default="0.9",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write into.", show_default="one in STORE/reports"),
    ] = None,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Whether runs differ, by how much, and on which queries.

    Every measure of the protocol: paired randomisation tests with Holm's correction, bootstrap
    intervals, sizes of effects, wins and losses, rank-biased overlap, and the runs that are tied
    with the best. A page shows the queries that differ most; Markdown, LaTeX and JSON lie beside
    it.

    Refuses runs of another protocol, split or gallery, or of other queries.
    """
    from flows.origins import resolve
    from flows.published import root_of
    from flows.settings import in_home
    from tasks.results.compare.compare import compare as compare_task
    from tasks.results.compare.comparison import Asked

    store = open_store(resolve(flags, os.environ).settings.store)
    made = compare_task(
        store,
        runs or (),
        tags=tags or (),
        stage=stage,
        anyway=anyway,
        asked=Asked(rounds or Asked.rounds, persistence or Asked.persistence),
        root_of=lambda dataset: root_of(dataset, flags),
        folder=None if out is None else in_home(out),
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
