"""``ablate``: variants trained, run and compared."""

import os
import shlex
from typing import Annotated, Any

import typer

from flows.ablation_settings import AblationSettings
from flows.about import settings_of
from flows.doors.cli.models import DATA
from flows.doors.cli.options import Json, flags_of, options_of, takes
from flows.engines.choice import prepare_prefect, wants_prefect
from flows.settings import Settings
from flows.views.streams import put, put_json, say
from storage.store import open_store

SHARED = (*DATA, "split", "categories", "protocol", "processes", "tokens", "memory")
"""Settings of a run that an ablation takes from the terminal; its file tells these and others."""


@takes(options_of(AblationSettings), flags_of(*SHARED))
def ablate(
    only_list: Annotated[
        bool, typer.Option("--list", help="What is there and what is left; train and run nothing.")
    ] = False,
    as_json: Json = False,
    **values: Any,
) -> None:
    """Train, run and compare the variants that a file declares.

    Interrupted, the same command goes on; what is finished is not made again.
    """
    from flows.ablation.run import list_trials
    from flows.engines.engine import InProcess
    from flows.origins import parse_ablation

    flags = {name: values.pop(name) for name in SHARED}
    settings = parse_ablation(flags, os.environ, **values)
    if only_list:
        _list(list_trials(settings, InProcess()), as_json=as_json)
        return
    made = _ablate(settings)
    if as_json:
        from flows.ablation.rendering import summary

        put_json(summary(made.table))
        return
    _tell(made)


def _ablate(settings: AblationSettings) -> Any:
    if wants_prefect(settings.data.engine):
        prepare_prefect(open_store(settings.data.store))
        from flows.doors.deployments import run_ablation_flow

        return run_ablation_flow(settings)
    from flows.ablation.run import run_ablation
    from flows.engines.engine import InProcess

    return run_ablation(settings, InProcess())


def _tell(made: Any) -> None:
    from flows.ablation.rendering import captions, cells, headings
    from flows.views.tables import Column, open_console, print_table

    table = made.table
    columns = [Column(name, right=place > 0) for place, name in enumerate(headings(table))]
    print_table(open_console(), columns, [cells(table, row) for row in table.rows])
    for caption in captions(table):
        say(caption)
    for file in made.files:
        put(str(file))


def _list(trials: Any, *, as_json: bool) -> None:
    from flows.views.tables import Column, open_console, print_table

    told = [
        {
            "row": trial.row.name,
            "seed": trial.seed,
            "state": _state(trial),
            "folder": str(trial.training.out) if trial.training else None,
            "command": None if trial.is_trained else _command(trial.training),
        }
        for trial in trials
    ]
    if as_json:
        put_json(told)
        return
    columns = [Column("row"), Column("seed", right=True), Column("training"), Column("folder")]
    rows = [
        [
            one["row"],
            "" if one["seed"] is None else str(one["seed"]),
            one["state"],
            one["folder"] or "",
        ]
        for one in told
    ]
    print_table(open_console(), columns, rows)
    for command in dict.fromkeys(one["command"] for one in told if one["command"]):
        put(command)


def _state(trial: Any) -> str:
    if trial.training is None:
        return "none needed"
    ledger = trial.ledger
    if ledger is None:
        return "not begun"
    at = f"step {ledger.step} of {ledger.of}"
    if trial.is_of_another:
        return f"of something else, {at}: it starts anew"
    return f"done at {at}" if trial.is_trained else at


BY_ENVIRONMENT = ("name", "categories", "protocol", "tokens", "memory", "processes")
"""Settings that concern a training, too, and for which ``train`` has no flag."""


def _command(training: Any) -> str:
    """What does the same as this row's part of the ablation."""
    words = ["cir-pipeline", "train", "stage2", "--config", training.recipe]
    words += ["--base", str(training.base), "--stage1", str(training.stage1)]
    words += ["--out", str(training.out)]
    if training.precision != "auto":
        words += ["--precision", training.precision]
    changed = {
        one: getattr(training.data, one.name)
        for one in settings_of(Settings)
        if getattr(training.data, one.name) != one.default
    }
    environment = []
    for one, value in changed.items():
        if one.name in DATA:
            words += [one.flags[0], str(value)]
        elif one.name in BY_ENVIRONMENT:
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            environment.append(f"CIR_{one.name.upper()}={shlex.quote(text)}")
    return " ".join([*environment, shlex.join(words)])
