"""Every evaluated run of the store into ``cir.duckdb``."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cir_core.errors import StoreCorrupt
from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Widths
from storage.catalog import BrokenRuns, PublishedRun, catalog_product, put_catalog
from storage.products import Product
from storage.runs import finished, left_out, read_as_ours, warn_of
from storage.views import Evaluated
from tasks.stages.output import Output, content_of
from tasks.stages.run_tables import read_run

_log = logging.getLogger(__name__)


CATALOG_PAIR_BYTES = 64
"""Of a pair, beside which the other tables are small. Measured: 63 with the demo's 63,000 pairs."""

CATALOG_COPIES = 2
"""The old file stays until the new one is whole."""

SECONDS_PER_RUN = 0.4
"""A run's small tables into the catalog, which holds all runs of the store."""


@dataclass(frozen=True)
class Publish(Output):
    """The catalog, brought up to date with the store.

    The file is always built from Parquet, so a deleted or damaged one comes back whole. Other runs
    whose artifacts are gone, damaged, another version's, or were made of bytes that are not there
    any more, are left out with a warning. Raises StoreCorrupt when that is true of this run, or
    when its tables contradict each other.
    """

    name = "publish"
    missing = "not in a sound catalog"
    seconds_per_pair = 2.4e-6

    @property
    def product(self) -> Product:
        return catalog_product(self.evaluated.store)

    def write(self) -> Mapping[str, str]:
        needed = self.evaluated
        needed.require_current()
        runs = finished(needed.store)
        warn_of(left_out(needed.store))
        try:
            return _write(runs, needed)
        except BrokenRuns as error:
            if needed.run_id in error.faults:
                raise
            _log.warning("left out of the catalog: %s", error)
            return _write([run for run in runs if run.run_id not in error.faults], needed)

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        runs = forecast.left.runs + 1
        return Effort(pairs=runs * forecast.work.candidates, seconds=runs * SECONDS_PER_RUN)

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """Other runs of the catalog are not counted."""
        return CATALOG_COPIES * CATALOG_PAIR_BYTES * counts.pairs


def _write(runs: Sequence[Evaluated], needed: Evaluated) -> Mapping[str, str]:
    """The catalog of those of the runs that can be read; gives each one's content. One run's tables
    are in memory at a time."""
    contents: dict[str, str] = {}

    def readable() -> Iterator[PublishedRun]:
        for run in runs:
            found = _read(run, is_needed=run == needed)
            if found is not None:
                published, contents[run.run_id] = found
                yield published

    put_catalog(needed.store, readable())
    return contents


def _read(run: Evaluated, *, is_needed: bool) -> tuple[PublishedRun, str] | None:
    """A run's tables, and the content that they are read from; None, with a warning, of another run
    than the needed one that cannot be read."""
    try:
        with read_as_ours(run):
            published = read_run(run)
        return published, content_of(run)
    except StoreCorrupt as error:
        if is_needed:
            raise
        _log.warning("run %s is left out of the catalog: %s", run.fingerprint, error.in_a_line)
        return None
