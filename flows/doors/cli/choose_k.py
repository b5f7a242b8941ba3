"""``choose-k``: every K from one run."""

import os
from typing import Annotated, Any

import typer

from flows.doors.cli.options import Json, RunHere, flags_of, takes
from flows.views.streams import put_json
from storage.store import open_store


@takes(flags_of("store"))
def choose_k(
    run: RunHere = None,
    ceilings: Annotated[
        list[float] | None,
        typer.Option(
            "--coverage",
            min=0,
            max=1,
            help="Which K has this share of the targets among its candidates; may be repeated.",
            show_default="0.95 and 0.99",
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Which K scores so many pairs at most.")
    ] = None,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Recall and cost for every K up to a run's.

    Nothing is scored again: the ranks of a finished run tell what fewer candidates a query would
    give, up to the K that it has.
    """
    from dataclasses import asdict

    from flows.origins import resolve
    from flows.published import reading_run
    from flows.views.analyses import print_analysis
    from flows.views.tables import open_console
    from storage.runs import find_run
    from tasks.results.analyses.k_curve import CEILINGS, chosen_ks

    found = find_run(open_store(resolve(flags, os.environ).settings.store), run)
    with reading_run(found) as catalog:
        row = catalog.run(found.run_id)
        analysis = chosen_ks(catalog, row, ceilings=ceilings or CEILINGS, budget=budget)
    if as_json:
        put_json({"run_id": found.run_id, **asdict(analysis)})
    else:
        print_analysis(analysis, open_console())
