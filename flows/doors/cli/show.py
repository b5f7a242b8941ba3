"""``show``: one query, told."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.doors.cli.options import Json, OneRun, flags_of, takes
from flows.doors.cli.texts import text
from flows.views.streams import put_json, say
from storage.store import open_store

if TYPE_CHECKING:
    from storage.views import Evaluated
    from tasks.results.story import Story


@takes(flags_of("store", "data_root"))
def show(
    query_id: Annotated[str, typer.Argument(help="As the dataset names it.", parser=text)],
    run_id: OneRun = None,
    top: Annotated[int, typer.Option(min=1, help="Candidates of each stage.")] = 10,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Draw them: a terminal of many colours shows them.")
    ] = False,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """One query's story: what was asked, found, and why.

    Its text, reference and targets; where the best target stands after each stage, and why it is
    not first; the first candidates of both stages with their scores, and what moved where.

    --pictures draws its reference, its target and the answer on a terminal, from the images below
    --data-root.
    """
    from dataclasses import asdict

    from flows.origins import resolve
    from flows.published import reading_run
    from flows.views.story import print_story
    from flows.views.tables import open_console
    from storage.runs import find_run
    from tasks.results.story import story

    run = find_run(open_store(resolve(flags, os.environ).settings.store), run_id)
    with reading_run(run) as catalog:
        told = story(catalog, run.run_id, query_id, top)
    if as_json:
        put_json(asdict(told))
    else:
        print_story(told, open_console())
        if pictures:
            _draw(run, told, flags)


def _draw(run: "Evaluated", told: "Story", flags: Mapping[str, Any]) -> None:
    from tempfile import TemporaryDirectory

    from flows.published import require_root
    from flows.views.half_blocks import print_pictures
    from flows.views.story import pictured
    from flows.views.tables import open_console
    from tasks.results.album import Album

    if not sys.stdout.isatty():
        say("no terminal: no pictures")
        return
    album = Album(run.ingested.read("images"), require_root(run, flags))
    images = pictured(told)
    with TemporaryDirectory() as folder:
        drawn = album.pictures(list(images.values()), Path(folder), files=0)
        print_pictures(
            {title: one.inline for title, one in zip(images, drawn, strict=True)}, open_console()
        )
