"""What a run says on the terminal: the recall table, and where things are."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.pipeline import Run
from storage.artifacts import Artifact

_STAGES = {"stage1": "stage 1", "stage2": "stage 2", "gain": "gain"}


def recall_rows(store: Path, run: Run) -> tuple[list[str], list[list[str]]]:
    """Header and rows of stage 1 against stage 2: percentages, paired gains ± 95 %."""
    metrics = Artifact(store, "evaluate", run.evaluated).read("metrics").to_pylist()
    values = {(m["category"], m["stage"], m["metric"], m["k"]): m for m in metrics}
    columns = list(
        dict.fromkeys((m["metric"], m["k"]) for m in metrics if m["metric"] != "coverage")
    )
    covered = {m["category"]: m for m in metrics if m["metric"] == "coverage"}
    header = ["category", "stage", *(_title(metric, k) for metric, k in columns)]
    if covered:
        header.append(f"coverage@{next(iter(covered.values()))['k']}")
    rows = []
    for category in covered:
        for stage, label in _STAGES.items():
            cells = [
                _cell(values.get((category, stage, metric, k)), stage) for metric, k in columns
            ]
            ceiling = _percent(covered[category]["value"]) if stage == "stage1" else ""
            rows.append([category if stage == "stage1" else "", label, *cells, ceiling])
    return header, rows


def print_recall(store: Path, run: Run, console: Console) -> None:
    """The table for people."""
    header, rows = recall_rows(store, run)
    if not rows:
        console.print("The queries have no labels: rankings are made, nothing is measured.")
        return
    table = Table(title=_protocol(store, run), title_justify="left", padding=(0, 0))
    for name in header:
        table.add_column(
            name, justify="left" if name in ("category", "stage") else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*row, end_section=row[1] == _STAGES["gain"])
    console.print(table)


def recall_markdown(store: Path, run: Run) -> str:
    """The table for Prefect's artifact page."""
    header, rows = recall_rows(store, run)
    lines = [f"**{_protocol(store, run)}**", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _protocol(store: Path, run: Run) -> str:
    settings = Artifact(store, "evaluate", run.evaluated).identity()["settings"]
    return f"Recall in %, protocol {settings['protocol']}, K = {settings['k']} (gain ± 95 %)"


def _title(metric: str, k: int) -> str:
    return {"recall": f"R@{k}", "recall_subset": f"Rsub@{k}"}.get(metric, "average")


def _cell(metric: dict[str, Any] | None, stage: str) -> str:
    if metric is None:
        return ""
    if stage != "gain":
        return _percent(metric["value"])
    margin = metric["ci_high"] - metric["value"]
    return f"{100 * metric['value']:+.2f} ±{100 * margin:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
