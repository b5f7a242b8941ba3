"""``show``: one query, told."""

import os
from typing import Annotated, Any

import typer

from flows.doors.cli.completion import run_ids
from flows.doors.cli.options import Json, flags_of, takes
from flows.doors.cli.texts import text
from flows.views.streams import put_json
from storage.store import open_store


@takes(flags_of("store"))
def show(
    query_id: Annotated[str, typer.Argument(help="As the dataset names it.", parser=text)],
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run",
            autocompletion=run_ids,
            help="A run's name, or the first digits of its id.",
            show_default="the only run",
            parser=text,
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Candidates of each stage.")] = 10,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """One query's story: what was asked, found, and why.

    Its text, reference and targets; where the best target stands after each stage, and why it is
    not first; the first candidates of both stages with their scores, and what moved where.
    """
    from flows.origins import resolve
    from flows.views.story import print_story, story_summary
    from flows.views.tables import open_console
    from storage.answers import reading
    from storage.catalog import CATALOG_FILE
    from storage.runs import find_run
    from tasks.results.story import story

    store = open_store(resolve(flags, os.environ).settings.store)
    run = find_run(store, run_id)
    with reading(store.local(CATALOG_FILE)) as catalog:
        told = story(catalog, run.run_id, query_id, top)
    if as_json:
        put_json(story_summary(told))
    else:
        print_story(told, open_console())
