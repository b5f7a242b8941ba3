"""``runs``: the runs of a store, and what they are called."""

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from flows.doors.cli.options import Json, NamedRun, flags_of, takes
from flows.doors.cli.texts import text
from flows.settings import Settings
from flows.views.streams import put_json, say
from storage.labels import Label, as_name, as_word
from storage.store import open_store

Tags = Annotated[list[str], typer.Argument(help="One or several words.", parser=text)]


@takes(flags_of("store"))
def runs_ls(
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Only runs that have it; may be repeated.", parser=text),
    ] = None,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """The finished runs, with their headlines, last made last.

    The headline is the number that a protocol's results are first compared by: the average over the
    categories, in %, of the run's last stage.
    """
    from dataclasses import asdict

    from flows.views.run_list import print_runs
    from flows.views.tables import open_console
    from tasks.results.run_list import list_runs

    wanted = {_checked(tag, as_word) for tag in tags or ()}
    runs = [run for run in list_runs(open_store(_settings(flags).store)) if wanted <= {*run.tags}]
    if as_json:
        put_json([asdict(run) for run in runs])
    elif runs:
        print_runs(runs, open_console())
    else:
        say("the store has no finished run" + " with these tags" * bool(wanted))


@takes(flags_of("store", "wait"))
def runs_name(
    run: NamedRun,
    new: Annotated[str, typer.Argument(help="No other run's name.", parser=text)],
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Give a run a name, in place of the one that it has.

    The catalog has it at once, the run's page when `report` makes it anew or the run is repeated.
    """
    name = _checked(new, as_name)
    _relabel(flags, run, lambda label: label.renamed(name), as_json=as_json)


@takes(flags_of("store", "wait"))
def runs_unname(run: NamedRun, as_json: Json = False, **flags: Any) -> None:
    """Take a run's name away."""
    _relabel(flags, run, lambda label: label.renamed(None), as_json=as_json)


@takes(flags_of("store", "wait"))
def runs_tag(run: NamedRun, tags: Tags, as_json: Json = False, **flags: Any) -> None:
    """Give a run tags, beside those that it has."""
    words = [_checked(tag, as_word) for tag in tags]
    _relabel(flags, run, lambda label: label.tagged(words), as_json=as_json)


@takes(flags_of("store", "wait"))
def runs_untag(run: NamedRun, tags: Tags, as_json: Json = False, **flags: Any) -> None:
    """Take tags away from a run."""
    words = [_checked(tag, as_word) for tag in tags]
    _relabel(flags, run, lambda label: label.untagged(words), as_json=as_json)


def _relabel(
    flags: dict[str, Any], called: str, change: Callable[[Label], Label], *, as_json: bool
) -> None:
    from flows.leasing import leased
    from storage.runs import find_run
    from tasks.results.relabel import relabel

    settings = _settings(flags)
    found = find_run(open_store(settings.store), called)
    with leased(found.store, settings.wait):
        made = relabel(found, change)
    run, label = made.run, made.run.label
    if as_json:
        put_json({"run_id": run.run_id, "name": label.name, "tags": label.tags})
        return
    name = "none" if label.name is None else repr(label.name)
    say(f"run {run.run_id}: name {name}, tags {', '.join(map(repr, label.tags)) or 'none'}")
    if made.has_other_page:
        say(f"its page has the label from before: `cir-pipeline report {run.run_id}` makes it anew")


def _checked(word: str, check: Callable[[str], str]) -> str:
    from cir_core.errors import UsageError

    try:
        return check(word)
    except ValueError as error:
        raise UsageError(
            "this cannot be a run's name or tag",
            item=word,
            cause=str(error),
            remedy="choose another: up to 100 letters, digits and signs, with single spaces",
        ) from error


def _settings(flags: dict[str, Any]) -> Settings:
    from flows.origins import resolve

    return resolve(flags, os.environ).settings
