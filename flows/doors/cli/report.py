"""``report``: a finished run's page, made anew."""

import os
from typing import Annotated, Any

import typer

from flows.doors.cli.options import Json, RunHere, flags_of, takes
from flows.views.streams import put, put_json
from storage.store import open_store


@takes(flags_of("store", "wait", "data_root"))
def report(
    run: RunHere = None,
    pictures: Annotated[
        int | None,
        typer.Option(min=0, help="Larger pictures beside the page, at most.", show_default="20000"),
    ] = None,
    all_pictures: Annotated[
        bool, typer.Option("--all-pictures", help="As many as the page mentions.")
    ] = False,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Make a finished run's page anew.

    From the store alone, but for the pictures, which are of the images below --data-root. Prints
    the page's path.
    """
    from cir_core.errors import UsageError
    from flows.origins import resolve
    from flows.published import require_root
    from flows.remake import remake_report
    from storage.runs import find_run
    from tasks.results.album import MOST_FILES

    if all_pictures and pictures is not None:
        raise UsageError("--all-pictures is no number", remedy="leave out it, or --pictures")
    most = None if all_pictures else MOST_FILES if pictures is None else pictures
    settings = resolve(flags, os.environ).settings
    found = find_run(open_store(settings.store), run)
    root = require_root(found, flags)
    files = remake_report(found, root, pictures=most, wait=settings.wait)
    if as_json:
        put_json({"run_id": found.run_id, "files": [str(file) for file in files]})
    else:
        put(str(files[0]))
