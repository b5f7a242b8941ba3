"""The commands. Data goes to stdout, talk to stderr.

A command's module is imported when it is asked for, and everything heavy inside the command, so
that ``--help`` answers at once.
"""

from typing import Annotated

import typer

from flows.doors.cli.on_demand import Command, group_of, put_on
from flows.views.streams import prepare_logging, put

_LOOK, _CHECK = "Look at results", "Check and settings"

PANELS: dict[str, dict[str, Command]] = {
    "Run": {
        "run": Command("runs:run", "From images to the report, making only what is missing."),
        "plan": Command("runs:plan", "What a run would find and make, and how long it takes."),
        "encode": Command("runs:encode", "Embeddings of images and queries, and where they lie."),
        "retrieve": Command("runs:retrieve", "Stage 1 alone, with its recall and a report."),
        "filter": Command("runs:filter_", "The same as `retrieve`: stage 1 alone."),
        "rerank": Command("runs:rerank", "The same as `run`: both stages, up to the report."),
        "evaluate": Command(
            "runs:evaluate", "The recall of both stages, without catalog and report."
        ),
    },
    _LOOK: {
        "report": Command("report:report", "Make a finished run's page anew."),
        "analyse": Command(
            "runs:analyse", "Why a run answers as it does, and what to do about it."
        ),
        "choose-k": Command("choose_k:choose_k", "Recall and cost for every K up to a run's."),
        "compare": Command(
            "compare:compare", "Whether runs differ, by how much, and on which queries."
        ),
        "show": Command("show:show", "One query's story: what was asked, found, and why."),
        "sql": Command("sql:sql", "Ask the results in SQL."),
    },
    "Hand results on": {
        "export": Command(
            "results:export", "Write a run's rankings: for test servers, TREC, tables."
        ),
        "check-submission": Command(
            "results:check_submission", "Whether the test server would take a file, and why not."
        ),
        "check-run": Command(
            "check_run:check_run", "Whether a run measures what was expected of it."
        ),
    },
    "Models": {
        "train": Command("models:train", "Train the base model, stage 1 or stage 2."),
        "ablate": Command(
            "ablation:ablate", "Train, run and compare the variants that a file declares."
        ),
        "convert": Command("models:convert", "Convert a published checkpoint, or back."),
    },
    _CHECK: {
        "doctor": Command("data:doctor", "Whether all that a run needs is there and in order."),
        "verify": Command("stores:verify", "Whether the store's bytes are what was written."),
        "datasets": Command(
            "data:datasets", "What is supported: layout, licence, how to obtain it."
        ),
        "protocols": Command("data:protocols", "What each recall means: the protocols by name."),
    },
}
"""The commands, as the help shows them. What each does is to fit in one line there: ``FIRST_LINE``
characters."""

RUNS = {
    "ls": Command("labels:runs_ls", "The finished runs, with their headlines, last made last."),
    "name": Command("labels:runs_name", "Give a run a name, in place of the one that it has."),
    "unname": Command("labels:runs_unname", "Take a run's name away."),
    "tag": Command("labels:runs_tag", "Give a run tags, beside those that it has."),
    "untag": Command("labels:runs_untag", "Take tags away from a run."),
}
"""The commands of ``runs``."""

STORE = {
    "ls": Command("stores:store_ls", "The artifacts by stage, and which runs need each."),
    "du": Command("stores:store_du", "What stages and runs take on the disk."),
    "gc": Command("stores:store_gc", "Remove what no finished run needs; give up runs."),
}
"""The commands of ``store``."""

CONFIG = {
    "show": Command("config:config_show", "All settings, their values, and where each comes from.")
}
"""The command of ``config``."""

GROUPS: dict[str, tuple[str, str, dict[str, Command]]] = {
    "runs": (_LOOK, "The runs of a store, and what they are called.", RUNS),
    "store": (_CHECK, "What is in the store, and what it takes.", STORE),
    "config": (_CHECK, "The settings of a run, or of a training.", CONFIG),
}
"""Commands of two words: the first one's panel and help, and the second ones."""

COMMANDS = {
    **{name: command for panel in PANELS.values() for name, command in panel.items()},
    **{f"{group} {name}": one for group in GROUPS for name, one in GROUPS[group][2].items()},
}
"""All of them, by the words that call them."""

FIRST_LINE = 58
"""What 80 columns leave beside the longest name of a command."""

app = typer.Typer(
    name="cir-pipeline",
    cls=group_of(COMMANDS),
    help="Composed image retrieval in two stages: filter candidates, re-rank them, report recall.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


for panel, commands in PANELS.items():
    put_on(app, commands, panel)

for group, (panel, told, commands) in GROUPS.items():
    below = typer.Typer(cls=group_of(commands), help=told, no_args_is_help=True)
    put_on(below, commands)
    app.add_typer(below, name=group, rich_help_panel=panel)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

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
