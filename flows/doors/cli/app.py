"""The commands. Data goes to stdout, talk to stderr.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from flows.doors.cli.ablation import ablate
from flows.doors.cli.check_run import check_run
from flows.doors.cli.choose_k import choose_k
from flows.doors.cli.compare import compare
from flows.doors.cli.config import config_show
from flows.doors.cli.data import datasets, doctor, protocols
from flows.doors.cli.labels import runs_ls, runs_name, runs_tag, runs_unname, runs_untag
from flows.doors.cli.models import convert, train
from flows.doors.cli.report import report
from flows.doors.cli.results import check_submission, export
from flows.doors.cli.runs import analyse, plan, run, run_to
from flows.doors.cli.show import show
from flows.doors.cli.sql import sql
from flows.ends import End
from flows.views.streams import prepare_logging, put

_NO_STAGE_2 = "Candidates, their recall and coverage, and a report; needs no stage 2."

ENDS: dict[str, tuple[End, str]] = {
    "encode": ("encode", "Embeddings of images and queries, and where they lie."),
    "retrieve": ("retrieve", f"Stage 1 alone, with its recall and a report.\n\n{_NO_STAGE_2}"),
    "filter": ("retrieve", f"The same as `retrieve`: stage 1 alone.\n\n{_NO_STAGE_2}"),
    "rerank": ("report", "The same as `run`: both stages, up to the report."),
    "evaluate": ("evaluate", "The recall of both stages, without catalog and report."),
}
"""Commands that end a run elsewhere."""

_ENDED = {name: run_to(until, told) for name, (until, told) in ENDS.items()}

_LOOK, _CHECK = "Look at results", "Check and settings"

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Run": {"run": run, "plan": plan, **_ENDED},
    _LOOK: {
        "report": report,
        "analyse": analyse,
        "choose-k": choose_k,
        "compare": compare,
        "show": show,
        "sql": sql,
    },
    "Hand results on": {
        "export": export,
        "check-submission": check_submission,
        "check-run": check_run,
    },
    "Models": {"train": train, "ablate": ablate, "convert": convert},
    _CHECK: {"doctor": doctor, "datasets": datasets, "protocols": protocols},
}
"""The commands, as the help shows them. What each does, its docstring's first paragraph, is to fit
in one line there: ``FIRST_LINE`` characters."""

RUNS: dict[str, Callable[..., None]] = {
    "ls": runs_ls,
    "name": runs_name,
    "unname": runs_unname,
    "tag": runs_tag,
    "untag": runs_untag,
}
"""The commands of ``runs``."""

GROUPS: dict[str, tuple[str, str, dict[str, Callable[..., None]]]] = {
    "runs": (_LOOK, "The runs of a store, and what they are called.", RUNS),
    "config": (_CHECK, "The settings of a run, or of a training.", {"show": config_show}),
}
"""Commands of two words: the first one's panel and help, and the second ones."""

FIRST_LINE = 58
"""What 80 columns leave beside the longest name of a command."""

app = typer.Typer(
    name="cir-pipeline",
    help="Composed image retrieval in two stages: filter candidates, re-rank them, report recall.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _help_of(command: Callable[..., None]) -> str:
    """Its docstring with a line per paragraph, which the terminal breaks where it is narrow."""
    paragraphs = (command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(one.split()) for one in paragraphs)


for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, help=_help_of(command), rich_help_panel=panel)(command)

for group, (panel, told, commands) in GROUPS.items():
    below = typer.Typer(help=told, no_args_is_help=True)
    for name, command in commands.items():
        below.command(name, help=_help_of(command))(command)
    app.add_typer(below, name=group, rich_help_panel=panel)


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
