"""``sql``, ``export`` and ``check-submission``: what runs leave, and what servers take."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from cir_core.submissions.formats import ExportFormat, Stage
from flows.cli.options import Json, Store
from flows.output.streams import put, put_json


def sql(
    statement: Annotated[str, typer.Argument(help="One read-only statement.")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Ask the catalog (DuckDB): tables runs, gallery, queries, target_ranks, candidates, rankings,
    metrics, problems; views recall, mrr, mean_average_precision, coverage, rank_movement,
    failures."""
    from flows.output.tables import Column, open_console, print_table
    from flows.output.values import cell, told_apart
    from flows.settings import resolve
    from storage.catalog import CATALOG_FILE, query

    settings = resolve({"store": store}, os.environ).settings
    columns, rows = query(settings.store / CATALOG_FILE, statement)
    if as_json:
        names = told_apart(columns)
        put_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    print_table(
        open_console(), [Column(name) for name in columns], [map(cell, row) for row in rows]
    )


def export(
    format_: Annotated[ExportFormat, typer.Option("--format", help="What to write.")],
    run_id: Annotated[
        str | None,
        typer.Option("--run", help="First digits of a run's id.", show_default="the only run"),
    ] = None,
    stage: Annotated[Stage, typer.Option(help="Whose order.")] = "stage2",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write into.", show_default="STORE/exports/RUN"),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Write a finished run's rankings: for CIRR's or CIRCO's test server, as a TREC run with qrels,
    or as a table with a row per query and candidate."""
    from flows.settings import resolve
    from tasks.export import export as export_task

    settings = resolve({"store": store}, os.environ).settings
    exported = export_task(settings.store, format_, run=run_id, stage=stage, folder=out)
    if as_json:
        files = [str(file) for file in exported.files]
        put_json({"run_id": exported.run_id, "format": format_, "files": files})
        return
    for file in exported.files:
        put(str(file))


def check_submission(
    file: Annotated[Path, typer.Argument(help="A submission file, whoever wrote it.")],
    dataset: Annotated[Literal["cirr", "circo"], typer.Option(help="Whose test server.")],
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder with the annotations (no images needed); without: form only."),
    ] = None,
    split: Annotated[Literal["val", "test"], typer.Option(help="CIRR's test1 is test.")] = "test",
    as_json: Json = False,
) -> None:
    """Whether the test server would take a file; if not, every reason at once (exit code 3)."""
    from dataclasses import asdict

    from flows.terminal import require_accepted
    from tasks.check import check_submission as check_task

    verdict = check_task(file, dataset, split, data_root)
    if as_json:
        put_json({"ok": not verdict.faults, **asdict(verdict)})
    elif not verdict.faults:
        put(f"ok: {verdict.checked}")
    require_accepted(verdict, file)
