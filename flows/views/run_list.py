"""The runs of a store, as a table."""

from collections.abc import Sequence

from flows.views.tables import Column, Console, print_table
from tasks.results.run_list import ListedRun
from tasks.results.titles import title_of

DIGITS = 12
"""Of a model's digest."""

COLUMNS = [
    Column("run", whole=True),
    *map(Column, ("name", "tags", "dataset", "split", "protocol")),
    Column("K", right=True),
    Column("headline", right=True),
    *map(Column, ("made", "stage 1", "stage 2")),
]


def print_runs(runs: Sequence[ListedRun], console: Console) -> None:
    """A row a run. The number is the average over the categories, in %, of the run's last stage."""
    print_table(console, COLUMNS, map(_row, runs))


def _row(run: ListedRun) -> list[str]:
    first = run.headline
    number = "" if first is None else f"{title_of(first.metric, first.k)} {100 * first.value:.2f}"
    return [
        *(run.run_id, run.name or "", ", ".join(run.tags)),
        *(run.dataset, run.split, run.protocol, str(run.k), number),
        *(run.made[:16].replace("T", " "), run.stage1[:DIGITS], (run.stage2 or "")[:DIGITS]),
    ]
