"""``datasets``, ``protocols`` and ``doctor``: what can be run on, and whether it can."""

import os
from typing import Annotated, Any

import typer

from flows.doors.cli.completion import completion_of
from flows.doors.cli.options import Json, flags_of, takes
from flows.doors.cli.texts import text
from flows.suggestions import dataset_names
from flows.views.streams import put_json

_COMPLETION = completion_of(dataset_names)


def protocols(
    dataset: Annotated[
        str | None,
        typer.Option(autocompletion=_COMPLETION, help="Only this dataset's.", parser=text),
    ] = None,
    as_json: Json = False,
) -> None:
    """What each recall means: the protocols by name.

    The first of a dataset is its default.
    """
    from dataclasses import asdict

    from cir_core.protocols import PROTOCOLS
    from cir_core.published import published_rows

    chosen = [one for one in PROTOCOLS.values() if dataset in (None, one.dataset)]
    if not chosen:
        from cir_core.datasets.registry import find_dataset

        find_dataset(str(dataset))
    if as_json:
        put_json([asdict(one) | {"published": published_rows(one.name)} for one in chosen])
        return
    from flows.views.listings import print_protocols
    from flows.views.tables import open_console

    print_protocols(chosen, open_console())


def datasets(as_json: Json = False) -> None:
    """What is supported: layout, licence, how to obtain it."""
    from dataclasses import asdict

    from cir_core.datasets.registry import DATASETS

    if as_json:
        put_json({name: asdict(one.about) for name, one in DATASETS.items()})
        return
    from flows.views.listings import print_datasets
    from flows.views.tables import open_console

    print_datasets(DATASETS.values(), open_console())


@takes(flags_of("data_root", "stage1", "stage2", "k", "store"))
def doctor(
    dataset: Annotated[
        str | None,
        typer.Option(
            autocompletion=_COMPLETION,
            help="Also check this dataset.",
            show_default="environment only",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val or test.", show_default="all that are there", parser=text),
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image too: slow, finds broken ones.")
    ] = False,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Whether all that a run needs is there and in order.

    Expected and found: environment, models, store, and a dataset's files, counts and images.
    Ends with 0 when all is well, 3 when something is wrong, 4 when something needed is missing.
    """
    from dataclasses import asdict

    from cir_core.doctor.findings import exit_code_of
    from flows.doctor import examine, print_findings
    from flows.origins import resolve
    from flows.views.tables import open_console

    flags |= {"dataset": dataset, "split": split}
    findings = examine(resolve(flags, os.environ), os.environ, decode=decode)
    code = exit_code_of(findings)
    if as_json:
        put_json({"exit_code": code, "findings": [asdict(one) for one in findings]})
    else:
        print_findings(findings, open_console())
    raise typer.Exit(code)
