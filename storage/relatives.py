"""Earlier artifacts of a store that hold some of the numbers that another one is to hold."""

from collections.abc import Collection
from typing import Any

from cir_core.errors import StoreCorrupt
from storage import listings, manifests
from storage.view import View, Viewed
from storage.views import Ingested


def relatives(view: View, *, apart_from: Collection[str], kind: type[Viewed]) -> list[Viewed]:
    """The whole artifacts of a kind, by fingerprint, but the view itself, that were made in the
    view's way ``apart_from`` their inputs in these roles: with its version, settings and other
    inputs. Those that are made of bytes which are not there any more are left out; their parts are
    looked at when they are read."""
    mine = way(view, apart_from=apart_from)
    every = [kind(view.store, one.fingerprint) for one in listings.finished(view.store, kind.stage)]
    alike = [one for one in every if way(one, apart_from=apart_from) == mine]
    return [one for one in alike if one != view and _is_current(one)]


def way(view: View, *, apart_from: Collection[str]) -> str:
    """A digest of what names a view but its stage, and these of its inputs."""
    named: dict[str, Any] = view.named_by
    inputs = {role: name for role, name in named["inputs"].items() if role not in apart_from}
    return manifests.digest({**named, "stage": None, "inputs": inputs})


def ingested_for(view: View, *roles: str) -> list[Ingested]:
    """The splits whose digests in these roles the view's are, by fingerprint: what its ids stand
    for is told by any of them."""
    asked = {role: view.digest(role) for role in roles}
    every = [
        Ingested(view.store, one.fingerprint)
        for one in listings.finished(view.store, Ingested.stage)
    ]
    return [one for one in every if asked.items() <= one.identity()["inputs"].items()]


def _is_current(view: View) -> bool:
    try:
        view.require_current()
    except StoreCorrupt:
        return False
    return True
