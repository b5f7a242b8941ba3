"""The catalog, for commands that look at one finished run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cir_core.errors import OutOfSpace, PreflightError, StoreBusy
from storage.answers import OpenCatalog, reading
from storage.catalog import CATALOG_FILE, catalog_product
from storage.views import Evaluated

_log = logging.getLogger(__name__)


@contextmanager
def reading_run(run: Evaluated) -> Iterator[OpenCatalog]:
    """The store's catalog, made anew before where it is gone, another version's, or lacks the run.
    Where that cannot be (the store is held, or read-only), it is read as it is, with a warning.

    Raises as ``Publish`` and ``reading``.
    """
    path = run.store.local(CATALOG_FILE)
    if run.run_id not in catalog_product(path).sources():
        from tasks.stages.output import make_output
        from tasks.stages.publish import Publish  # takes a second to import

        try:
            with run.store.lease():
                make_output(Publish(run))
        except (OutOfSpace, PreflightError, StoreBusy) as error:
            _log.warning("the catalog is read as it is: %s", error.in_a_line)
    with reading(path) as catalog:
        yield catalog
