"""Removing what no finished run needs, and giving up runs."""

import logging
from collections.abc import Iterable

from cir_core.errors import StoreCorrupt
from storage.catalog import CATALOG_FILE, catalog_product
from storage.garbage import Waste, Wish, garbage, remove
from storage.runs import finished
from storage.store import Store
from storage.survey import survey
from storage.views import Evaluated
from tasks.stages.output import write_output
from tasks.stages.publish import Publish

_log = logging.getLogger(__name__)


def wished(runs: Iterable[Evaluated], *, interrupted: bool, tokens: bool) -> Wish:
    """With these runs given up."""
    return Wish([(run.stage, run.fingerprint) for run in runs], interrupted, tokens)


def find_garbage(store: Store, wish: Wish) -> list[Waste]:
    """Raises as ``garbage``."""
    return garbage(survey(store), wish)


def collect(store: Store, wish: Wish) -> list[Waste]:
    """Remove it, and make a catalog that has a run which is not there any more anew; the caller
    holds the store. After a kill the same call, without the runs that are gone, does the rest.

    Raises as ``garbage``, and StoreBusy when a shell has the catalog open for writing.
    """
    waste = find_garbage(store, wish)
    remove(store, waste)
    _bring_catalog(store)
    return waste


def _bring_catalog(store: Store) -> None:
    product, runs = catalog_product(store), finished(store)
    if {*product.recorded()} <= {run.run_id for run in runs}:
        return
    for run in runs:
        try:
            write_output(Publish(run))
        except StoreCorrupt as error:
            _log.warning("run %s cannot be published: %s", run.run_id, error.in_a_line)
        else:
            return
    store.remove(CATALOG_FILE)
    product.forget()
