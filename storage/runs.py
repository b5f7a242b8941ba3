"""Finding a finished run of a store by its id or its name."""

import logging
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from cir_core.errors import PreflightError, StoreCorrupt, UsageError
from storage import listings
from storage.store import Store
from storage.views import Evaluated, Probed

_log = logging.getLogger(__name__)


def finished(store: Store) -> list[Evaluated]:
    """The runs that are this version's and have a manifest to be believed, by id."""
    return [Evaluated(store, one.fingerprint) for one in listings.finished(store, Evaluated.stage)]


def left_out(store: Store) -> list[Evaluated]:
    """Other versions' runs, and damaged ones."""
    return [Evaluated(store, one.fingerprint) for one in listings.left_out(store, Evaluated.stage)]


def probes_of(run: Evaluated) -> Probed | None:
    """What else the run's queries were asked, if that is there and was made of the bytes that are
    there now; of several the newest. Asking repairs, as ``Artifact.is_done``."""
    every = [
        Probed(run.store, one.fingerprint) for one in listings.finished(run.store, Probed.stage)
    ]
    mine = [one for one in every if one.digest(Evaluated.stage) == run.fingerprint]
    mine.sort(key=lambda one: one.created_at(), reverse=True)
    return next((one for one in mine if one.is_done), None)


def find_run(store: Store, called: str | None) -> Evaluated:
    """The evaluation of the run that is ``called`` so: by its name, or by the first digits of its
    id; without, of the only run. An id in full is the run's, whatever others are named.

    Raises PreflightError when the store has no finished run, and UsageError, with a list of the
    runs to choose from, when none or several match. A run that this version cannot read is left out
    with a warning, and raises StoreCorrupt when it is called for.
    """
    runs, others = finished(store), left_out(store)
    warn_of(others)
    named, matching = _called(others, called) if called else [], _called(runs, called)
    if named and not matching:
        raise _unreadable(named[0], "its manifest is another version's, damaged, or another run's")
    if not runs:
        raise PreflightError(
            "the store has no finished run",
            item=str(store),
            remedy="run `cir-pipeline run` first, or name another folder with --store",
        )
    if len(matching) == 1:
        return matching[0]
    several = "several runs" if called is None else f"{len(matching)} runs that {called!r} may mean"
    raise UsageError(
        f"the store has {several if matching else f'no run {called!r}'}",
        item="\n".join(_told(run) for run in matching or runs),
        remedy="say which by its name, or by more digits of its id (`cir-pipeline runs ls`)",
    )


def tagged_so(store: Store, tags: Collection[str]) -> list[Evaluated]:
    """The finished runs that have all of these tags, by id. Raises UsageError where none has."""
    found = [run for run in finished(store) if {*tags} <= {*run.label.tags}]
    if not found:
        raise UsageError(
            f"the store has no run with {'these tags' if len(tags) > 1 else 'this tag'}",
            item=", ".join(map(repr, tags)),
            remedy="`cir-pipeline runs ls` shows all runs and their tags",
        )
    return found


def require_free(run: Evaluated, name: str) -> None:
    """Raises UsageError, which tells whose it is, where another finished run of the store has the
    name."""
    for other in finished(run.store):
        if other != run and other.label.name == name:
            raise UsageError(
                f"another run is called {name!r} already",
                item=_told(other),
                remedy=f"choose another name, or free this one: `cir-pipeline runs unname "
                f"{other.run_id}`",
            )


def _called(runs: Sequence[Evaluated], called: str | None) -> list[Evaluated]:
    if called is None:
        return list(runs)
    word = unicodedata.normalize("NFC", called)  # as names are kept
    exact = [run for run in runs if called in (run.run_id, run.fingerprint)]
    return exact or [
        run for run in runs if run.fingerprint.startswith(called) or run.label.name == word
    ]


@contextmanager
def read_as_ours(run: Evaluated) -> Iterator[None]:
    """Raises StoreCorrupt, naming the run, where reading it does not find what this version
    writes: another one may have had other inputs, settings, protocols or columns."""
    try:
        yield
    except (LookupError, TypeError, pa.ArrowInvalid) as error:
        raise _unreadable(run, f"{type(error).__name__}: {error}") from error


def _unreadable(run: Evaluated, cause: str) -> StoreCorrupt:
    return StoreCorrupt(
        "a run was made by another version, or is damaged",
        item=str(run),
        cause=cause,
        remedy="make it again with this version: `cir-pipeline run` with the same settings",
    )


def warn_of(others: list[Evaluated]) -> None:
    """One warning that names runs which are left out; none when there are none."""
    if others:
        names = ", ".join(run.run_id for run in others)
        _log.warning("left out, made by another version or damaged: runs %s", names)


def _told(run: Evaluated) -> str:
    settings = run.identity()["settings"]
    told = f"{settings.get('protocol')}, K = {settings.get('k')}"
    name = run.label.name
    return f"{run.run_id}  {f'{name!r}, ' if name else ''}{told}, made {run.created_at()}"
