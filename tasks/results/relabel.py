"""Naming and tagging a run that is there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage.labels import Label, write_label
from storage.runs import require_free
from storage.views import Evaluated
from tasks.results.report.report import Report
from tasks.stages.output import make_output
from tasks.stages.publish import Publish


@dataclass(frozen=True)
class Relabelled:
    """A run, and whether it has a page that says something else of it than the store does now."""

    run: Evaluated
    has_other_page: bool


def relabel(run: Evaluated, change: Callable[[Label], Label]) -> Relabelled:
    """Give a run another label, and the catalog what it says; the caller holds the store. The run's
    page, whose pictures need the images, keeps the label that it has.

    Raises UsageError when another run has the name.
    """
    label = change(run.label)
    if label.name is not None:
        require_free(run, label.name)
    if label != run.label:
        write_label(run.store, run.run_id, label)
    make_output(Publish(run))
    report = Report(run, Path())
    return Relabelled(run, report.files[0].exists() and not report.is_done)
