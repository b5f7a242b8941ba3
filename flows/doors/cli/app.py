"""The commands. Data goes to stdout, talk to stderr.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from flows.doors.cli.ablation import ablate
from flows.doors.cli.config import config_show
from flows.doors.cli.data import datasets, doctor, protocols
from flows.doors.cli.models import convert, train
from flows.doors.cli.results import check_submission, export, sql
from flows.doors.cli.runs import plan, run, run_to
from flows.ends import End
from flows.views.streams import prepare_logging, put

_FILTER = "Stage 1 alone: candidates, their recall and coverage, and a report; needs no stage 2."

ENDS: dict[str, tuple[End, str]] = {
    "encode": ("encode", "Embeddings of images and queries, and where they lie."),
    "retrieve": ("retrieve", _FILTER),
    "filter": ("retrieve", f"{_FILTER} The same as `retrieve`."),
    "rerank": ("report", "The same as `run`: every stage that the rankings and the report need."),
    "evaluate": ("evaluate", "The recall of both stages, without catalog and report."),
}
"""Commands that end a run elsewhere."""

app = typer.Typer(
    name="cir-pipeline",
    help="Composed image retrieval in two stages: filter candidates, re-rank them, report recall.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(run)
for name, (until, told) in ENDS.items():
    app.command(name)(run_to(until, told))
app.command()(plan)
app.command()(convert)
app.command()(train)
app.command()(ablate)
app.command()(sql)
app.command()(export)
app.command("check-submission")(check_submission)
app.command()(protocols)
app.command()(datasets)
app.command()(doctor)
config_app = typer.Typer(help="The settings of a run, or of a training.", no_args_is_help=True)
config_app.command("show")(config_show)
app.add_typer(config_app, name="config")


def _tell_version(asked: bool) -> None:
    if asked:
        put(version("cir-pipeline"))
        raise typer.Exit


@app.callback()
def _log_to_stderr(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More talk.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    prepare_logging(verbose=verbose)
