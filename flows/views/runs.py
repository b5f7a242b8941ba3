"""What a run leaves: its files, and how far it went."""

from typing import Any

from flows.run import Run
from flows.views.recall import (
    adaptive_rows,
    gallery_rows,
    print_recall,
    problem_lines,
    recall_summary,
)
from flows.views.streams import put
from flows.views.tables import Console, print_line
from storage.labels import UNLABELLED

OF_SPLIT = ("dataset", "split")


def run_summary(run: Run) -> dict[str, Any]:
    """All that a run leaves, for programs: null or empty where it ended before."""
    measures = run.is_evaluated
    label = run.evaluated.label if measures else UNLABELLED
    return {
        "run_id": run.run_id if measures else None,
        "name": label.name,
        "tags": label.tags,
        **{name: run.evaluated.ingested.setting(name) if measures else None for name in OF_SPLIT},
        "protocol": run.evaluated.setting("protocol") if measures else None,
        "k": run.evaluated.setting("k") if measures else None,
        "until": run.until,
        "artifacts": {stage: str(view) for stage, view in run.artifacts.items()},
        "catalog": str(run.catalog) if run.files else None,
        "report": str(run.report) if run.files else None,
        "ranked": [str(path) for path in run.ranked],
        "made": run.made,
        "problems": run.problems,
        "changed": run.changed,
        "galleries": gallery_rows(run) if measures else [],
        "adaptive_k": adaptive_rows(run) if measures else [],
        "recall": recall_summary(run) if measures else [],
    }


def print_run(run: Run, console: Console) -> None:
    """What a run leaves, for people: its recall and its files, as far as it went; of one that ended
    before the report of both stages, also where its artifacts are."""
    if run.is_evaluated:
        print_recall(run, console)
    else:
        for line in problem_lines(run):
            print_line(console, line)
    for line in file_lines(run):
        put(line)


def file_lines(run: Run) -> list[str]:
    """Where everything lies."""
    lines = []
    if run.until not in ("report", "analyse"):
        width = max(map(len, run.artifacts)) + 2
        lines += [f"{stage + ':':{width}}{view}" for stage, view in run.artifacts.items()]
    if run.files:
        lines += [f"catalog: {run.catalog}", f"report:  {run.report}"]
    return lines + [f"ranked:  {path}" for path in run.ranked]
