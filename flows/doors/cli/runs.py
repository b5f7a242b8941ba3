"""``run``, and the commands that end it elsewhere. ``plan``: what a run takes."""

import os
from collections.abc import Callable
from typing import Any

import typer

from flows.doors.cli.options import Json, flags_of, takes
from flows.ends import End
from flows.engines.choice import prepare_prefect, wants_prefect
from flows.settings import Settings
from flows.views.streams import put_json, say
from storage.store import open_store


@takes(flags_of())
def run(as_json: Json = False, **flags: Any) -> None:
    """From images to the report, making only what is missing.

    Without options: the embedded demo, with its own data and trained models.
    """
    _run(flags, as_json=as_json)


def run_to(until: End, told: str) -> Callable[..., None]:
    """The command of a run that ends there, whatever ``until`` other sources say."""

    @takes(flags_of(*(name for name in Settings.model_fields if name != "until")))
    def command(as_json: Json = False, **flags: Any) -> None:
        _run({**flags, "until": until}, as_json=as_json)

    command.__doc__ = f"{told}\n\nTakes the options of `run`, and makes what is missing."
    return command


_NO_STAGE_2 = "Candidates, their recall and coverage, and a report; needs no stage 2."

encode = run_to("encode", "Embeddings of images and queries, and where they lie.")
retrieve = run_to("retrieve", f"Stage 1 alone, with its recall and a report.\n\n{_NO_STAGE_2}")
filter_ = run_to("retrieve", f"The same as `retrieve`: stage 1 alone.\n\n{_NO_STAGE_2}")
rerank = run_to("report", "The same as `run`: both stages, up to the report.")
evaluate = run_to("evaluate", "The recall of both stages, without catalog and report.")


@takes(flags_of())
def plan(as_json: Json = False, **flags: Any) -> None:
    """What a run would find and make, and how long it takes.

    Takes the options of `run`. Checks the models and ingests the split, as a run does (the demo is
    drawn), then times samples of the rest; nothing else is made. Ends with 8 when the disk is too
    small for what is left.
    """
    import time

    from cir_core.errors import OutOfSpace
    from flows.origins import resolve
    from flows.plan import make_plan
    from flows.views.plans import plan_summary, print_plan
    from flows.views.tables import open_console

    settings = resolve(flags, os.environ).settings
    made = make_plan(settings, started=time.process_time())  # CPU time since python started
    if as_json:
        put_json(plan_summary(made))
    else:
        print_plan(made, open_console())
    if not made.fits:
        raise typer.Exit(OutOfSpace.exit_code)


@takes(flags_of(*(name for name in Settings.model_fields if name != "until")))
def analyse(as_json: Json = False, **flags: Any) -> None:
    """Why a run answers as it does, and what to do about it.

    Do negatives separate, what does z_t keep, does a query need both halves, which kinds of
    queries fail, and why? Takes the options of `run`, and makes what is missing; what it asks the
    models beside the run is kept, and is in the catalog and in the report from then on.
    """
    _run({**flags, "until": "analyse"}, as_json=as_json, tell=_tell_analyses)


def _tell(result: Any, *, as_json: bool) -> None:
    from flows.views.runs import print_run, run_summary
    from flows.views.tables import open_console

    if as_json:
        put_json(run_summary(result))
    else:
        print_run(result, open_console())


def _tell_analyses(result: Any, *, as_json: bool) -> None:
    from flows.views.analyses import analyses_summary, print_analyses
    from flows.views.tables import open_console
    from tasks.results.analyses.every import analyse as analyse_run

    analyses = analyse_run(result.catalog, result.run_id)
    if as_json:
        put_json(analyses_summary(result, analyses))
    else:
        print_analyses(result, analyses, open_console())


def _run(flags: dict[str, Any], *, as_json: bool, tell: Callable[..., None] = _tell) -> None:
    from flows.drift import require_unchanged
    from flows.origins import resolve

    settings = resolve(flags, os.environ).settings
    if wants_prefect(settings.engine):
        result = _run_with_prefect(settings)
    else:
        from flows.engines.engine import InProcess
        from flows.run import run_pipeline

        result = run_pipeline(settings, InProcess())
    if not result.made:
        say("nothing to do: every stage was there already")
    else:
        say(f"made: {', '.join(result.made)}")
    tell(result, as_json=as_json)
    require_unchanged(result)


def _run_with_prefect(settings: Any) -> Any:
    prepare_prefect(open_store(settings.store))
    from flows.doors.deployments import run_flow
    from flows.drift import InputsChanged

    try:
        return run_flow(settings)
    except InputsChanged as changed:  # told after the results, as without Prefect
        return changed.run
