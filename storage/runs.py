"""Finding a finished run of a store by its name."""

from pathlib import Path

from cir_core.errors import PreflightError, UsageError
from storage.artifacts import Artifact, finished
from storage.catalog import run_id_of


def find_run(store: Path, name: str | None) -> Artifact:
    """The evaluation of the run whose id begins with ``name``; without a name, of the only run.

    Raises PreflightError when the store has no finished run, and UsageError, with a list of the
    runs to choose from, when none or several match.
    """
    runs = finished(store, "evaluate")
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
        item="\n          ".join(_told(run) for run in matching or runs),
        remedy="name one with --run and the first digits of its id",
    )


def _told(run: Artifact) -> str:
    settings = run.identity()["settings"]
    made = f"made {run.created_at()}"
    return f"{run_id_of(run.fingerprint)}  {settings['protocol']}, K = {settings['k']}, {made}"
