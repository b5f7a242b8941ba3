"""What is said on the terminal of a run, of a plan, and of a checked submission."""

import shlex
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from cir_core.errors import ProblemsFound
from cir_core.metrics.recall import MICRO
from cir_core.planning.effort import Effort
from cir_core.submissions.faults import Verdict
from cir_core.submissions.formats import format_of
from flows.plan import Plan
from flows.run import Run
from flows.views.markdown import as_markdown
from flows.views.streams import put
from flows.views.tables import Column, Console, print_line, print_table

PLAN_HEADER = ["stage", "state", "images", "queries", "pairs", "FLOP", "disk", "time"]
MILLIONS = 10_000_000
"""From here on a count is told in millions: eight digits are no longer read at a glance, and would
make a plan wider than a terminal."""

HEADER = ["category", "metric", "stage 1", "stage 2", "gain [95 %]"]


def recall_rows(run: Run) -> list[list[str]]:
    """Stage 1 against stage 2 under ``header_of`` the run, in percent: a row per category and
    metric. Micro averages and MRR are left to the report and to SQL."""
    names = ("stage1", "stage2", "gain")[: len(header_of(run)) - 2]
    return [
        [category, _title(metric, k), *(_cell(stages.get(name), name) for name in names)]
        for (category, metric, k), stages in _metrics(run).items()
        if category != MICRO and metric != "mrr"
    ]


def header_of(run: Run) -> list[str]:
    """Of the table of recall; where nothing was re-ranked, stage 1 alone."""
    return HEADER if run.evaluated.is_reranked else HEADER[:3]


def run_summary(run: Run) -> dict[str, Any]:
    """All that a run leaves, for programs: null or empty where it ended before."""
    measures = run.is_evaluated
    return {
        "run_id": run.run_id if measures else None,
        "until": run.until,
        "artifacts": {stage: str(view.folder) for stage, view in run.artifacts.items()},
        "catalog": str(run.catalog) if run.files else None,
        "report": str(run.report) if run.files else None,
        "ranked": [str(path) for path in run.ranked],
        "made": run.made,
        "problems": run.problems,
        "changed": run.changed,
        "galleries": gallery_rows(run) if measures else [],
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
    if run.until != "report":
        width = max(map(len, run.artifacts)) + 2
        lines += [f"{stage + ':':{width}}{view.folder}" for stage, view in run.artifacts.items()]
    if run.files:
        lines += [f"catalog: {run.catalog}", f"report:  {run.report}"]
    return lines + [f"ranked:  {path}" for path in run.ranked]


def recall_summary(run: Run) -> list[dict[str, Any]]:
    """All metrics for programs, as fractions: one object per category, metric and k (0 where
    there is none), with ``value``, ``ci_low`` and ``ci_high`` of stage1, stage2 and gain, each
    where it is measured, and ``n``, the queries behind them."""
    numbers = ("value", "ci_low", "ci_high")
    return [
        {"category": category, "metric": metric, "k": k}
        | {stage: {name: row[name] for name in numbers} for stage, row in stages.items()}
        | {"n": next(iter(stages.values()))["n"]}
        for (category, metric, k), stages in _metrics(run).items()
    ]


def _metrics(run: Run) -> dict[tuple[str, str, int], dict[str, dict[str, Any]]]:
    """Rows of the table ``metrics`` by category, metric and k, and then by stage; the categories
    in their order."""
    rows = run.evaluated.read("metrics").to_pylist()
    found: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["category"], row["metric"], row["k"]), {})[row["stage"]] = row
    places = {name: place for place, name in enumerate(dict.fromkeys(key[0] for key in found))}
    return dict(sorted(found.items(), key=lambda item: places[item[0][0]]))


def print_recall(run: Run, console: Console) -> None:
    """The table for people."""
    rows = recall_rows(run)
    if not rows:
        print_line(console, "The queries have no labels: rankings are made, nothing is measured.")
        print_line(console, f"export them: {_export_command(run)}")
    else:
        header = header_of(run)
        columns = [Column(name, right=name not in ("category", "metric")) for name in header]
        print_table(console, columns, rows, title=_protocol(run), section_by=0)
    for line in gallery_lines(run):
        print_line(console, line)


def require_accepted(verdict: Verdict, file: Path) -> None:
    """Raises ProblemsFound with every fault of a submission."""
    if verdict.faults:
        count = sum(fault.count for fault in verdict.faults)
        told = "1 fault" if count == 1 else f"{count:,} faults"
        raise ProblemsFound(
            f"the test server would refuse this submission: {told}",
            item="\n".join([f"{file}, as {verdict.checked}", *map(str, verdict.faults)]),
            remedy="correct them; --split val checks a file for the validation split",
        )


def _export_command(run: Run) -> str:
    format_ = format_of(run.evaluated.ingested.setting("dataset"))
    words = ["cir-pipeline", "export", "--format", format_, "--run", run.run_id]
    words += [] if run.evaluated.is_reranked else ["--stage", "stage1"]
    return shlex.join([*words, "--store", str(run.evaluated.store)])


def gallery_rows(run: Run) -> list[dict[str, Any]]:
    """What was searched, by category: images, missing, sha256."""
    rows: list[dict[str, Any]] = run.evaluated.read("galleries").to_pylist()
    return rows


def late_fusion_lines(run: Run) -> list[str]:
    """How the final order was made, where it is not stage 2's."""
    fusion = run.evaluated.ranked.late_fusion if run.evaluated.is_reranked else None
    if fusion is None:
        return []
    fitted, (weight, scale) = run.evaluated.ranked.fitted, fusion
    where = "given" if fitted is None else f"fitted on {fitted.fitted_on}"
    told = f"late fusion: stage 2 is its score + {weight:g} x stage 1's, {scale}; weight {where}"
    return [told]


def gallery_lines(run: Run) -> list[str]:
    """How it was ranked, what was searched, and loudly what could not be."""
    lines = late_fusion_lines(run)
    for gallery in gallery_rows(run):
        images, missing = gallery["images"], gallery["missing"]
        short = f"SHORT: {images} of {images + missing}" if missing else f"{images}"
        lines.append(f"gallery {gallery['category']}: {short} images, {gallery['sha256'][:16]}")
    return lines + problem_lines(run)


def problem_lines(run: Run) -> list[str]:
    """A warning, where there is something to warn of."""
    if not run.problems:
        return []
    return [f"WARNING: {run.problems} images or queries could not be used (table problems)"]


def recall_markdown(run: Run) -> str:
    """The table for Prefect's artifact page."""
    lines = [f"**{as_markdown(_protocol(run))}**", ""]
    header = header_of(run)
    lines += [_markdown_row(header), "|" + " --- |" * len(header)]
    lines += [_markdown_row(row) for row in recall_rows(run)]
    told = [f"- {as_markdown(line)}" for line in gallery_lines(run)]
    return "\n".join([*lines, "", *told])


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(map(as_markdown, cells)) + " |"


def _protocol(run: Run) -> str:
    protocol, k = run.evaluated.setting("protocol"), run.evaluated.setting("k")
    of = "" if run.evaluated.is_reranked else " of stage 1"
    return f"Recall{of} in %, protocol {protocol}, K = {k}"


def _title(metric: str, k: int) -> str:
    names = {"recall": "R", "recall_subset": "subset R", "map": "mAP", "cirr_average": "average"}
    return f"{names.get(metric, metric)}@{k}" if k else names.get(metric, metric)


def _cell(metric: dict[str, Any] | None, stage: str) -> str:
    if metric is None:
        return ""
    if stage != "gain":
        return _percent(metric["value"])
    value, low, high = (100 * metric[name] for name in ("value", "ci_low", "ci_high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def print_plan(plan: Plan, console: Console) -> None:
    """A row per stage and one for all, why a stage is not done, and what a run takes."""
    *_, flops, disk, time = _effort(plan.total)
    total = ["all", "", "", "", "", flops, disk, time]  # stages see the same images and pairs
    columns = [
        Column(name, right=name not in PLAN_HEADER[:2], whole=True, footer=sum_of_all)
        for name, sum_of_all in zip(PLAN_HEADER, total, strict=True)
    ]
    rows = [[planned.stage, planned.state, *_effort(planned.effort)] for planned in plan.stages]
    print_table(console, columns, rows, title="What a run would do")
    for line in _plan_lines(plan):
        print_line(console, line)
    if not plan.fits:
        told = "the disk is too small: free space, or move the store: --store"
        print_line(console, told, "bold red")


def plan_summary(plan: Plan) -> dict[str, Any]:
    """All of it, for programs."""
    return asdict(plan) | {"total": asdict(plan.total), "seconds": plan.seconds}


def _effort(effort: Effort) -> list[str]:
    """Empty where there is nothing to do."""
    told = [_count(number) for number in (effort.images, effort.queries, effort.pairs)]
    told += [_prefixed(effort.flops), f"{_prefixed(effort.bytes)}B", _duration(effort.seconds)]
    return [cell if number else "" for cell, number in zip(told, astuple(effort), strict=True)]


def _plan_lines(plan: Plan) -> list[str]:
    stages: dict[str, list[str]] = {}
    for planned in plan.stages:
        stages.setdefault(planned.why, []).append(planned.stage)
    lines = [f"{', '.join(names)}: {why}" for why, names in stages.items() if why]
    lines = lines or ["nothing to do: every stage is there already"]
    lines += [
        f"time: {_duration(plan.seconds)} on {plan.device}, {_duration(plan.start)} of it to start "
        "and to look what is there",
        f"disk: {_prefixed(plan.total.bytes)}B of {_prefixed(plan.free)}B free",
    ]
    if plan.with_cache:
        seconds, size = plan.start + plan.with_cache.seconds, plan.with_cache.bytes
        lines.append(f"with --tokens cache: {_duration(seconds)}, {_prefixed(size)}B")
    if plan.published_flops:
        published = _prefixed(plan.published_flops)
        lines.append(f"the published loop would spend {published}FLOP on the same pairs")
    return lines


def _count(number: int) -> str:
    return f"{number:,}" if number < MILLIONS else f"{number / 1e6:,.1f} M"


def _prefixed(number: float) -> str:
    """With a decimal prefix and a space, for a unit to follow."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {prefix}"
    return f"{number / 1e3:.1f} k"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "< 1 s"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
