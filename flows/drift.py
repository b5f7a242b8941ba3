"""Inputs that changed after they were used: told when everything is written."""

from cir_core.errors import ProblemsFound
from flows.run import Run

CHANGES_SHOWN = 10


class InputsChanged(ProblemsFound):
    """The results are whole and stand for what was read; some of it is not there any more."""

    def __init__(self, run: Run) -> None:
        shown = list(run.changed[:CHANGES_SHOWN])
        if len(run.changed) > len(shown):
            shown.append(f"... and {len(run.changed) - len(shown)} more")
        super().__init__(
            f"{len(run.changed)} inputs have changed since they were used",
            item="\n".join(shown),
            cause="something writes to them; the results are written, and stand for what was read "
            "before the change",
            remedy="run the same command again: what the change concerns is made anew",
        )
        self.run = run


def require_unchanged(run: Run) -> None:
    """Raises InputsChanged, which carries the run."""
    if run.changed:
        raise InputsChanged(run)
