"""``run`` and ``rerank``: everything from images to the report. ``plan``: what that takes."""

import os
from typing import Any

import typer

from flows.doors.cli.options import Json, flags_of, takes
from flows.engines.choice import prepare_prefect, wants_prefect
from flows.views.streams import put, put_json, say
from storage.store import open_store


@takes(flags_of())
def run(as_json: Json = False, **flags: Any) -> None:
    """Everything from images to the report, making only what is missing.

    Without options: the embedded demo, with its own data and trained models.
    """
    from flows.drift import require_unchanged
    from flows.origins import resolve

    settings = resolve(flags, os.environ).settings
    if wants_prefect(settings.engine):
        result = _run_with_prefect(settings)
    else:
        from flows.engines.engine import InProcess
        from flows.run import run_pipeline

        result = run_pipeline(settings, InProcess())
    _tell(result, settings, as_json=as_json)
    require_unchanged(result)


@takes(flags_of())
def plan(as_json: Json = False, **flags: Any) -> None:
    """What a run with the same options would find and make, and how long that takes.

    Checks the models and ingests the split, as a run does (the demo is
    drawn), then times samples of the rest; nothing else is made. Ends
    with 8 when the disk is too small for what is left.
    """
    import time

    from cir_core.errors import OutOfSpace
    from flows.origins import resolve
    from flows.plan import make_plan
    from flows.views.tables import open_console
    from flows.views.terminal import plan_summary, print_plan

    settings = resolve(flags, os.environ).settings
    made = make_plan(settings, started=time.process_time())  # CPU time since python started
    if as_json:
        put_json(plan_summary(made))
    else:
        print_plan(made, open_console())
    if not made.fits:
        raise typer.Exit(OutOfSpace.exit_code)


def _tell(result: Any, settings: Any, *, as_json: bool) -> None:
    from flows.views.tables import open_console
    from flows.views.terminal import gallery_rows, print_recall, recall_summary

    if not result.made:
        say("nothing to do: every stage was there already")
    else:
        say(f"made: {', '.join(result.made)}")
    if as_json:
        summary = {
            "run_id": result.run_id,
            "catalog": str(result.catalog),
            "report": str(result.report),
            "ranked": [str(path) for path in result.ranked],
            "made": result.made,
            "problems": result.problems,
            "changed": result.changed,
            "galleries": gallery_rows(result),
            "recall": recall_summary(result),
        }
        put_json(summary)
        return
    print_recall(result, open_console())
    put(f"catalog: {result.catalog}")
    put(f"report:  {result.report}")
    for path in result.ranked:
        put(f"ranked:  {path}")


def _run_with_prefect(settings: Any) -> Any:
    prepare_prefect(open_store(settings.store))
    from flows.doors.deployments import run_flow
    from flows.drift import InputsChanged

    try:
        return run_flow(settings)
    except InputsChanged as changed:  # told after the results, as without Prefect
        return changed.run
