"""A finished run's page, made anew from the store."""

from dataclasses import dataclass
from pathlib import Path

from cir_core.errors import UsageError
from flows.settings import Settings, demo_root
from storage.runs import find_run, read_as_ours
from storage.store import open_store
from tasks.results.report.report import Report
from tasks.stages.output import make_output, write_output
from tasks.stages.publish import Publish


@dataclass(frozen=True)
class Page:
    """A run and its page's files, the page first."""

    run_id: str
    files: tuple[Path, ...]


def remake_report(settings: Settings, called: str | None, *, pictures: int | None) -> Page:
    """The page of the run that is ``called`` so, or of the only one, with so many larger pictures
    beside it (None: all), whatever page is there; its catalog, too, if that is not sound.

    Raises as ``find_run``, and UsageError where it is not told where the images lie: a page without
    its pictures would take the place of one with them. An image that is not what was ingested is
    not shown.
    """
    store = open_store(settings.store)
    found = find_run(store, called)
    with read_as_ours(found):
        dataset = found.ingested.setting("dataset")
    if settings.data_root is None and dataset != "demo":
        raise UsageError(
            f"a page of dataset {dataset} needs --data-root",
            item=f"run {found.run_id}",
            cause="its pictures are made from the images, which the store does not hold",
            remedy="pass the folder that the run read them from",
        )
    root = settings.data_root or demo_root(settings.store)
    report = Report(found, root, pictures)
    with store.lease():
        make_output(Publish(found))
        write_output(report)
    return Page(found.run_id, report.files)
