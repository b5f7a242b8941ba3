"""Finding a finished run of a store by its name."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from cir_core.errors import PreflightError, StoreCorrupt, UsageError
from storage.artifacts import Artifact, finished, left_out
from storage.catalog import run_id_of

_log = logging.getLogger(__name__)


def find_run(store: Path, name: str | None) -> Artifact:
    """The evaluation of the run whose id begins with ``name``; without a name, of the only run.

    Raises PreflightError when the store has no finished run, and UsageError, with a list of the
    runs to choose from, when none or several match. A run that this version cannot read is left out
    with a warning, and raises StoreCorrupt when it is named.
    """
    runs, others = finished(store, "evaluate"), left_out(store, "evaluate")
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
def read_as_ours(run: Artifact) -> Iterator[None]:
    """Raises StoreCorrupt, naming the run, where reading it does not find what this version
    writes: another one may have had other inputs, settings, protocols or columns."""
    try:
        yield
    except (LookupError, TypeError, pa.ArrowInvalid) as error:
        raise _unreadable(run, f"{type(error).__name__}: {error}") from error


def _unreadable(run: Artifact, cause: str) -> StoreCorrupt:
    return StoreCorrupt(
        "a run was made by another version, or is damaged",
        item=str(run.folder),
        cause=cause,
        remedy="make it again with this version: `cir-pipeline run` with the same settings",
    )


def warn_of(others: list[Artifact]) -> None:
    """One warning that names runs which are left out; none when there are none."""
    if others:
        names = ", ".join(run_id_of(run.fingerprint) for run in others)
        _log.warning("left out, made by another version or damaged: runs %s", names)


def _told(run: Artifact) -> str:
    settings = run.identity()["settings"]
    told = f"{settings.get('protocol')}, K = {settings.get('k')}"
    return f"{run_id_of(run.fingerprint)}  {told}, made {run.created_at()}"
