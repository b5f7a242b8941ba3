"""The runs of a store, as a table."""

from collections.abc import Sequence

from flows.views.tables import Column, Console, print_table
from tasks.results.run_list import ListedRun
from tasks.results.titles import title_of

DIGITS = 8
"""Of a model's digest."""

COLUMNS = [
    Column("run", whole=True),
    *map(Column, ("name", "tags", "data", "protocol")),
    Column("K", right=True),
    Column("headline", right=True),
    *map(Column, ("made", "stage 1", "stage 2")),
]

MODELS = ("stage 1", "stage 2")


def print_runs(runs: Sequence[ListedRun], console: Console) -> None:
    """A row a run. The headline is the average over the categories, in %, of the run's last stage.
    Names and tags have columns where some run has one, models where the runs differ in them: so
    most lists fit in 80 columns."""
    cells = zip(*map(_row, runs), strict=True)
    shown = {
        column: each for column, each in zip(COLUMNS, cells, strict=True) if _tells(column, each)
    }
    print_table(console, list(shown), zip(*shown.values(), strict=True))


def _tells(column: Column, cells: Sequence[str]) -> bool:
    return len({*cells}) > 1 if column.heading in MODELS else any(cells)


def _row(run: ListedRun) -> list[str]:
    first = run.headline
    number = "" if first is None else f"{title_of(first.metric, first.k)} {100 * first.value:.2f}"
    return [
        *(run.run_id, run.name or "", ", ".join(run.tags)),
        *(f"{run.dataset} {run.split}", run.protocol, str(run.k), number),
        *(run.made[:16].replace("T", " "), run.stage1[:DIGITS], (run.stage2 or "")[:DIGITS]),
    ]
