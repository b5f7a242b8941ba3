"""Finished runs, for commands that look at them: the catalog, and where their images lie."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cir_core.datasets.registry import DATASETS
from cir_core.errors import OutOfSpace, PreflightError, StoreBusy, UsageError
from flows.leasing import leased
from flows.origins import resolve
from flows.settings import demo_root
from storage.answers import OpenCatalog, reading
from storage.catalog import CATALOG_FILE, catalog_product
from storage.runs import read_as_ours
from storage.views import Evaluated

_log = logging.getLogger(__name__)


@contextmanager
def reading_run(run: Evaluated) -> Iterator[OpenCatalog]:
    """The store's catalog, made anew before where it is gone, another version's, or lacks the run.
    Where that cannot be (the store is held, or read-only), it is read as it is, with a warning. One
    that has the run is left alone, whoever may have changed it since: somebody's own tables would
    be gone.

    Raises as ``Publish`` and ``reading``.
    """
    if not catalog_product(run.store).names(run.run_id):
        from tasks.stages.output import make_output
        from tasks.stages.publish import Publish  # takes a second to import

        try:
            with leased(run.store):
                make_output(Publish(run))
        except (OutOfSpace, PreflightError, StoreBusy) as error:
            _log.warning("the catalog is read as it is: %s", error.in_a_line)
    with reading(run.store.local(CATALOG_FILE)) as catalog:
        yield catalog


def root_of(dataset: str, flags: Mapping[str, Any]) -> Path | None:
    """Where the images of a run's dataset lie, as flags, the environment and the dataset's section
    of a settings file say; the demo's lie below the store."""
    name = dataset if dataset in DATASETS else "own"
    settings = resolve({**flags, "dataset": name}, os.environ).settings
    if settings.data_root is None and name == "demo":
        return demo_root(settings.store)
    return settings.data_root


def require_root(run: Evaluated, flags: Mapping[str, Any]) -> Path:
    """``root_of`` a run's dataset. Raises UsageError where nothing says it."""
    with read_as_ours(run):
        dataset = run.ingested.setting("dataset")
    root = root_of(dataset, flags)
    if root is None:
        raise UsageError(
            f"pictures of dataset {dataset} need --data-root",
            item=f"run {run.run_id}",
            cause="they are made from the images, which the store does not hold",
            remedy="pass the folder that the run read them from",
        )
    return root
