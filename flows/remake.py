"""A finished run's page, made anew from the store."""

from pathlib import Path

from flows.leasing import leased
from storage.views import Evaluated
from tasks.results.report.report import Report
from tasks.stages.output import make_output, write_output
from tasks.stages.publish import Publish


def remake_report(
    run: Evaluated, root: Path, *, pictures: int | None, wait: str | None = None
) -> tuple[Path, ...]:
    """The files of a run's page, the page first, with so many larger pictures beside it (None:
    all), whatever page is there; its catalog, too, if that is not sound.

    The images are below ``root``; one that is not what was ingested is not shown.
    """
    report = Report(run, root, pictures)
    with leased(run.store, wait):
        make_output(Publish(run))
        write_output(report)
    return report.files
