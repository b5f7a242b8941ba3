"""Finding a finished run of a store by its name."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from cir_core.errors import PreflightError, StoreCorrupt, UsageError
from storage import listings
from storage.store import Store
from storage.views import Evaluated

_log = logging.getLogger(__name__)


def finished(store: Store) -> list[Evaluated]:
    """The runs that are this version's and have a manifest to be believed, by name."""
    return [Evaluated(store, one.fingerprint) for one in listings.finished(store, Evaluated.stage)]


def left_out(store: Store) -> list[Evaluated]:
    """Other versions' runs, and damaged ones."""
    return [Evaluated(store, one.fingerprint) for one in listings.left_out(store, Evaluated.stage)]


def find_run(store: Store, name: str | None) -> Evaluated:
    """The evaluation of the run whose id begins with ``name``; without a name, of the only run.

    Raises PreflightError when the store has no finished run, and UsageError, with a list of the
    runs to choose from, when none or several match. A run that this version cannot read is left out
    with a warning, and raises StoreCorrupt when it is named.
    """
    runs, others = finished(store), left_out(store)
    warn_of(others)
    named = [run for run in others if name and run.fingerprint.startswith(name)]
    if named and not any(run.fingerprint.startswith(name or "") for run in runs):
        raise _unreadable(named[0], "its manifest is another version's, damaged, or another run's")
    if not runs:
        raise PreflightError(
            "the store has no finished run",
            item=str(store),
            remedy="run `cir-pipeline run` first, or name another folder with --store",
        )
    matching = [run for run in runs if run.fingerprint.startswith(name or "")]
    if len(matching) == 1:
        return matching[0]
    several = "several runs" if name is None else f"{len(matching)} runs whose id begins {name!r}"
    raise UsageError(
        f"the store has {several if matching else f'no run whose id begins {name!r}'}",
        item="\n".join(_told(run) for run in matching or runs),
        remedy="name one with --run and the first digits of its id",
    )


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
        item=str(run.folder),
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
    return f"{run.run_id}  {told}, made {run.created_at()}"
