"""``export`` and ``check-submission``: what runs leave, and what servers take."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cir_core.submissions.formats import ExportFormat, Stage
from flows.doors.cli.options import Json, OneRun, flags_of, takes
from flows.views.streams import put, put_json
from storage.store import open_store


@takes(flags_of("store"))
def export(
    format_: Annotated[ExportFormat, typer.Option("--format", help="What to write.")],
    run_id: OneRun = None,
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
    and candidate. `latex` writes the run's recall instead, as a paper's table.
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
