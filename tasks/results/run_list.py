"""The finished runs of a store, each in a line."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cir_core.errors import StoreCorrupt
from storage.runs import finished, left_out, read_as_ours, warn_of
from storage.store import Store
from storage.views import Evaluated
from tasks.results.record.numbers import averaged

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Headline:
    """The number that a run is first asked for, of its last stage, as a fraction: of the average
    over the categories, or of the only one."""

    metric: str
    k: int
    stage: str
    value: float


@dataclass(frozen=True)
class ListedRun:
    """``k`` is auto where it is adaptive. ``models`` are the digests of stage 1's and stage 2's;
    None of what was not run."""

    run_id: str
    name: str | None
    tags: tuple[str, ...]
    dataset: str
    split: str
    protocol: str
    k: int | str
    headline: Headline | None
    made: str
    stage1: str
    stage2: str | None


def list_runs(store: Store) -> list[ListedRun]:
    """In the order in which they were made. One that cannot be read is left out with a warning."""
    warn_of(left_out(store))
    return sorted(_readable(store), key=lambda run: (run.made, run.run_id))


def _readable(store: Store) -> Iterator[ListedRun]:
    for run in finished(store):
        try:
            with read_as_ours(run):
                listed = _listed(run)
            yield listed
        except StoreCorrupt as error:
            _log.warning("run %s is not listed: %s", run.run_id, error.in_a_line)


def _listed(run: Evaluated) -> ListedRun:
    label, source = run.label, run.ingested
    return ListedRun(
        run_id=run.run_id,
        name=label.name,
        tags=label.tags,
        dataset=source.setting("dataset"),
        split=source.setting("split"),
        protocol=source.protocol.name,
        k=run.setting("k"),
        headline=_headline(run),
        made=run.created_at(),
        stage1=run.candidates.encoded.digest("model"),
        stage2=run.ranked.scored.digest("model") if run.is_reranked else None,
    )


def _headline(run: Evaluated) -> Headline | None:
    """None where the queries have no labels."""
    metric, k = run.ingested.protocol.headline
    stage = "stage2" if run.is_reranked else "stage1"
    rows: list[dict[str, Any]] = [
        row
        for row in run.read("metrics").to_pylist()
        if (row["metric"], row["k"], row["stage"]) == (metric, k, stage)
    ]
    return Headline(metric, k, stage, averaged(rows)[0]["value"]) if rows else None
