"""``verify`` and ``store``: what is in a store, whether it is whole, and what nobody needs."""

import os
from typing import Annotated, Any

import typer

from flows.doors.cli.completion import run_ids
from flows.doors.cli.options import Json, flags_of, takes
from flows.doors.cli.texts import text
from flows.settings import Settings, shipped_model
from flows.views.streams import put_json, say
from storage.store import open_store


@takes(flags_of("store", "stage1", "stage2"))
def verify(as_json: Json = False, **flags: Any) -> None:
    """Whether the store's bytes are what was written.

    Every part, manifest, receipt, label, page and the catalog, each byte once; and the models of
    --stage1 and --stage2. What is damaged is named, and what to do about it. Nothing is written or
    repaired. Ends with 6 when anything is damaged.
    """
    from dataclasses import asdict

    from flows.views.stores import print_verified
    from flows.views.tables import open_console
    from tasks.upkeep.verify import require_whole
    from tasks.upkeep.verify import verify as verify_task

    settings = _settings(flags)
    store = open_store(settings.store)
    given = [one for one in (settings.stage1, settings.stage2) if one is not None]
    shipped = [] if given else [shipped_model("stage1"), shipped_model("stage2")]
    verified = verify_task(store, given, shipped)
    if as_json:
        put_json({"ok": verified.is_whole, **asdict(verified)})
    else:
        print_verified(verified, open_console())
    require_whole(verified, store)


@takes(flags_of("store"))
def store_ls(as_json: Json = False, **flags: Any) -> None:
    """The artifacts by stage, and which runs need each.

    One without runs is an interrupted run's, or was kept for others.
    """
    from dataclasses import asdict

    from flows.views.stores import print_artifacts
    from flows.views.tables import open_console
    from tasks.upkeep.listing import list_artifacts

    listed = list_artifacts(open_store(_settings(flags).store))
    if as_json:
        put_json([asdict(one) for one in listed])
    elif listed:
        print_artifacts(listed, open_console())
    else:
        say("the store has no artifact")


@takes(flags_of("store"))
def store_du(as_json: Json = False, **flags: Any) -> None:
    """What stages and runs take on the disk.

    A run's own bytes are those that no other run needs: what giving it up would free.
    """
    from dataclasses import asdict

    from flows.views.stores import print_usage
    from flows.views.tables import open_console
    from tasks.upkeep.listing import measure

    usage = measure(open_store(_settings(flags).store))
    if as_json:
        put_json(asdict(usage))
    else:
        print_usage(usage, open_console())


@takes(flags_of("store", "wait"))
def store_gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="Give up this run, by its name or id: its page, its label, and what it alone "
            "needs; may be repeated.",
            autocompletion=run_ids,
            parser=text,
        ),
    ] = None,
    interrupted: Annotated[
        bool,
        typer.Option(
            "--interrupted",
            help="Also what leads to no finished run: of interrupted runs, and of those that "
            "ended before their evaluation.",
        ),
    ] = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Also kept image tokens, though runs may read them.")
    ] = False,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Remove what no finished run needs; give up runs.

    By itself, only what nobody can read any more: what was set aside as damaged, what killed
    writers left, and what other versions made.
    """
    from dataclasses import asdict

    from flows.leasing import leased
    from flows.views.stores import print_waste
    from flows.views.tables import open_console
    from storage.runs import find_run
    from tasks.upkeep.collect import collect, find_garbage, wished

    settings = _settings(flags)
    store = open_store(settings.store)
    wish = wished(
        [find_run(store, run) for run in runs or ()], interrupted=interrupted, tokens=tokens
    )
    if dry_run:
        waste = find_garbage(store, wish)
    elif store.files():
        with leased(store, settings.wait):
            waste = collect(store, wish)
    else:
        waste = []
    if as_json:
        told = {"removed": not dry_run, "bytes": sum(one.bytes for one in waste)}
        put_json({**told, "waste": [asdict(one) for one in waste]})
    else:
        print_waste(waste, open_console(), is_removed=not dry_run)


def _settings(flags: dict[str, Any]) -> Settings:
    from flows.origins import resolve

    return resolve(flags, os.environ).settings
