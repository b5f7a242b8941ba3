"""Naming and tagging a run that is there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage.labels import Label, write_label
from storage.runs import find_run, require_free
from storage.store import Store
from storage.views import Evaluated
from tasks.results.report.report import Report
from tasks.stages.output import make_output
from tasks.stages.publish import Publish


@dataclass(frozen=True)
class Relabelled:
    """A run, and whether it has a page that says something else of it than the store does now."""

    run: Evaluated
    has_other_page: bool


def relabel(store: Store, called: str | None, change: Callable[[Label], Label]) -> Relabelled:
    """Give the run that is ``called`` so another label, and the catalog what it says. The run's
    page, whose pictures need the images, keeps the label that it has.

    Raises what ``find_run`` raises, UsageError when another run has the name, StoreBusy when the
    store is held.
    """
    run = find_run(store, called)
    with store.lease():
        label = change(run.label)
        if label.name is not None:
            require_free(run, label.name)
        if label != run.label:
            write_label(store, run.run_id, label)
        make_output(Publish(run))
        report = Report(run, Path())
        return Relabelled(run, report.files[0].exists() and not report.is_done)
