"""``datasets``, ``protocols`` and ``doctor``: what can be run on, and whether it can."""

import os
from typing import Annotated

import typer

from flows.doors.cli.completion import dataset_names
from flows.doors.cli.options import DataRoot, Json, K, Stage1, Stage2, Store
from flows.doors.cli.texts import text
from flows.views.streams import put_json


def protocols(
    dataset: Annotated[
        str | None,
        typer.Option(autocompletion=dataset_names, help="Only this dataset's.", parser=text),
    ] = None,
    as_json: Json = False,
) -> None:
    """What each recall means: the protocols by name, the first of a dataset is its default."""
    from dataclasses import asdict

    from cir_core.protocols import PROTOCOLS

    chosen = [one for one in PROTOCOLS.values() if dataset in (None, one.dataset)]
    if not chosen:
        from cir_core.datasets.registry import find_dataset

        find_dataset(str(dataset))
    if as_json:
        hidden = {"published"}
        rows = [{k: v for k, v in asdict(one).items() if k not in hidden} for one in chosen]
        put_json(rows)
        return
    from flows.views.listings import print_protocols
    from flows.views.tables import open_console

    print_protocols(chosen, open_console())


def datasets(as_json: Json = False) -> None:
    """What is supported, where it is expected, its licence, and how to obtain it."""
    from dataclasses import asdict

    from cir_core.datasets.registry import DATASETS

    if as_json:
        put_json({name: asdict(one.about) for name, one in DATASETS.items()})
        return
    from flows.views.listings import print_datasets
    from flows.views.tables import open_console

    print_datasets(DATASETS.values(), open_console())


def doctor(
    dataset: Annotated[
        str | None,
        typer.Option(
            autocompletion=dataset_names,
            help="Also check this dataset.",
            show_default="environment only",
        ),
    ] = None,
    data_root: DataRoot = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val or test.", show_default="all that are there", parser=text),
    ] = None,
    stage1: Stage1 = None,
    stage2: Stage2 = None,
    k: K = None,
    store: Store = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every image too: slow, finds broken ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Expected and found: environment, models, store, and a dataset's files, counts and images.

    Ends with 0 when all is well, 3 when something is wrong, 4 when something needed is missing.
    """
    from dataclasses import asdict

    from cir_core.doctor.findings import exit_code_of
    from flows.doctor import examine, print_findings
    from flows.settings import resolve
    from flows.views.tables import open_console

    flags = {
        "dataset": dataset,
        "data_root": data_root,
        "split": split,
        "stage1": stage1,
        "stage2": stage2,
        "k": k,
        "store": store,
    }
    findings = examine(resolve(flags, os.environ), os.environ, decode=decode)
    code = exit_code_of(findings)
    if as_json:
        put_json({"exit_code": code, "findings": [asdict(one) for one in findings]})
    else:
        print_findings(findings, open_console())
    raise typer.Exit(code)
