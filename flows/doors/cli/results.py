"""``sql``, ``export`` and ``check-submission``: what runs leave, and what servers take."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cir_core.submissions.formats import ExportFormat, Stage
from flows.doors.cli.completion import run_ids
from flows.doors.cli.options import Json, flags_of, takes
from flows.doors.cli.texts import text
from flows.views.streams import put, put_json
from storage.store import open_store


@takes(flags_of("store"))
def sql(
    statement: Annotated[str, typer.Argument(help="One read-only statement.", parser=text)],
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Rows at most.", show_default="1000 of a table, all of the rest"),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the rows as CSV.")] = False,
    as_json: Json = False,
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Let the statement read and write other files.")
    ] = False,
    **flags: Any,
) -> None:
    """Ask the results in SQL.

    The catalog (DuckDB) has the tables runs, gallery_members, galleries, queries, target_ranks,
    candidates, rankings, metrics, costs, problems, late_fusion_curve, probes, dropped_pairs; views
    gallery, recall, mrr, mean_average_precision, coverage, k_curve, rank_movement, failures,
    fused_scores, speeds, gain_per_petaflop, final_rankings, query_traits, pair_kinds, separation,
    stage_agreement, occurrences.

    Tables are for eyes; CSV and JSON hold every value exactly.
    """
    from cir_core.errors import UsageError
    from flows.origins import resolve
    from flows.views.answers import print_csv, print_json, print_rows
    from storage.answers import ask
    from storage.catalog import CATALOG_FILE

    if as_csv and as_json:
        raise UsageError("--csv and --json are two forms", remedy="leave one of them out")
    settings = resolve(flags, os.environ).settings
    form = print_csv if as_csv else print_json if as_json else print_rows
    with ask(
        open_store(settings.store).local(CATALOG_FILE), statement, files=allow_files
    ) as answer:
        form(answer, limit)


@takes(flags_of("store"))
def export(
    format_: Annotated[ExportFormat, typer.Option("--format", help="What to write.")],
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run",
            autocompletion=run_ids,
            help="A run's name, or the first digits of its id.",
            show_default="the only run",
            parser=text,
        ),
    ] = None,
    stage: Annotated[Stage, typer.Option(help="Whose order.")] = "stage2",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write into.", show_default="STORE/exports/RUN"),
    ] = None,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Write a run's rankings: for test servers, TREC, tables.

    For CIRR's or CIRCO's test server, as a TREC run with qrels, or as a table with a row per query
    and candidate.
    """
    from flows.origins import resolve
    from flows.settings import in_home
    from tasks.results.export import export as export_task

    settings = resolve(flags, os.environ).settings
    folder = None if out is None else in_home(out)
    exported = export_task(
        open_store(settings.store), format_, run=run_id, stage=stage, folder=folder
    )
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
    """Whether the test server would take a file, and why not.

    Every reason is told at once. Ends with 3 when it would not.
    """
    from dataclasses import asdict

    from flows.settings import in_home
    from tasks.results.check_submission import check_submission as check_task
    from tasks.results.check_submission import require_accepted

    root = None if data_root is None else in_home(data_root)
    verdict = check_task(file, dataset, split, root)
    if as_json:
        put_json({"ok": not verdict.faults, **asdict(verdict)})
    elif not verdict.faults:
        put(f"ok: {verdict.checked}")
    require_accepted(verdict, file)
