"""``check-run``: whether a run measures what another has."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.doors.cli.options import Json, RunHere, flags_of, takes
from flows.views.streams import put_json
from storage.store import open_store


@takes(flags_of("store"))
def check_run(
    expected: Annotated[
        Path, typer.Option(help="What it should measure: another run's expected.toml, or a copy.")
    ],
    run: RunHere = None,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Whether a run measures what was expected of it.

    Every number is ok (equal to rounding), within its tolerance, different or missing; protocol,
    settings, galleries and models are the same or not. Ends with 3 unless all agree.
    """
    from dataclasses import asdict

    from flows.origins import resolve
    from flows.settings import in_home
    from flows.views.checks import print_check, require_reproduced
    from flows.views.tables import open_console
    from storage.runs import find_run, read_as_ours
    from tasks.results.record.expected import check, read_expected

    file = in_home(expected)
    wanted = read_expected(file)
    found = find_run(open_store(resolve(flags, os.environ).settings.store), run)
    with read_as_ours(found):
        made = check(found, wanted)
    if as_json:
        put_json({"ok": made.ok, **asdict(made)})
    else:
        print_check(made, open_console())
    require_reproduced(made, file)
