"""What a run measured: its recall, the galleries that were searched, and what could not be used."""

import shlex
from typing import Any

from cir_core.conformal import NO_GUARANTEE
from cir_core.metrics.recall import MICRO
from cir_core.submissions.formats import format_of
from flows.run import Run
from flows.views.tables import Column, Console, print_line, print_table
from tasks.results.markup.markdown import as_markdown, markdown_table
from tasks.results.titles import title_of
from tasks.results.wording import unusable, with_interval

HEADER = ["category", "metric", "stage 1", "stage 2", "gain [95 %]"]


def recall_rows(run: Run) -> list[list[str]]:
    """Stage 1 against stage 2 under ``header_of`` the run, in percent: a row per category and
    metric. Micro averages and MRR are left to the report and to SQL."""
    names = ("stage1", "stage2", "gain")[: len(header_of(run)) - 2]
    return [
        [category, title_of(metric, k), *(_cell(stages.get(name), name) for name in names)]
        for (category, metric, k), stages in _metrics(run).items()
        if category != MICRO and metric != "mrr"
    ]


def header_of(run: Run) -> list[str]:
    """Of the table of recall; where nothing was re-ranked, stage 1 alone."""
    return HEADER if run.evaluated.is_reranked else HEADER[:3]


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


def print_recall(run: Run, console: Console) -> None:
    """The table for people."""
    rows = recall_rows(run)
    if not rows:
        print_line(console, "The queries have no labels: rankings are made, nothing is measured.")
        if not run.ranked:
            print_line(console, f"export them: {_export_command(run)}")
    else:
        header = header_of(run)
        columns = [Column(name, right=name not in ("category", "metric")) for name in header]
        print_table(console, columns, rows, title=_protocol(run), section_by=0)
    for line in gallery_lines(run):
        print_line(console, line)


def gallery_rows(run: Run) -> list[dict[str, Any]]:
    """What was searched, by category: images, missing, sha256."""
    rows: list[dict[str, Any]] = run.evaluated.read("galleries").to_pylist()
    return rows


def gallery_lines(run: Run) -> list[str]:
    """How it was ranked, what was searched, and loudly what could not be."""
    lines = adaptive_lines(run) + late_fusion_lines(run)
    for gallery in gallery_rows(run):
        images, missing = gallery["images"], gallery["missing"]
        short = f"SHORT: {images} of {images + missing}" if missing else f"{images}"
        lines.append(f"gallery {gallery['category']}: {short} images, {gallery['sha256'][:16]}")
    return lines + problem_lines(run)


def adaptive_rows(run: Run) -> list[dict[str, Any]]:
    """By which thresholds K was chosen, gallery by gallery; none where it is a number."""
    found = run.evaluated.candidates.thresholds
    rows: list[dict[str, Any]] = [] if found is None else found.read("thresholds").to_pylist()
    return rows


def adaptive_lines(run: Run) -> list[str]:
    """How many candidates there are, where K is adaptive, and what that assures."""
    rows = adaptive_rows(run)
    if not rows:
        return []
    ks = run.evaluated.candidates.ks()  # reads all candidates
    if not len(ks):
        return []
    calibrated = sorted({row["n"] for row in rows})
    told = " to ".join(f"{n:,}" for n in dict.fromkeys((calibrated[0], calibrated[-1])))
    thresholds = run.evaluated.candidates.thresholds
    assert thresholds is not None, "there are rows"
    by, guarantee = thresholds.calibrated_by, thresholds.guarantee or ""
    whose = f"labelled ones of {f'run {by}' if by else 'the same gallery'} that calibrate it"
    if guarantee.startswith(NO_GUARANTEE):
        assured = f"NOT ASSURED, {guarantee}; by the {told} {whose}"
    else:
        assured = f"assured: {guarantee}, for queries like the {told} {whose}"
    return [
        f"adaptive K: {ks.min():,} to {ks.max():,} candidates a query, {ks.mean():.1f} on average, "
        f"{ks.sum():,} pairs",
        assured,
    ]


def late_fusion_lines(run: Run) -> list[str]:
    """How the final order was made, where it is not stage 2's."""
    fusion = run.evaluated.ranked.late_fusion if run.evaluated.is_reranked else None
    if fusion is None:
        return []
    fitted, (weight, scale) = run.evaluated.ranked.fitted, fusion
    where = "given" if fitted is None else f"fitted on {fitted.fitted_on}"
    told = f"late fusion: stage 2 is its score + {weight:g} x stage 1's, {scale}; weight {where}"
    return [told]


def problem_lines(run: Run) -> list[str]:
    """A warning, where there is something to warn of."""
    if not run.problems:
        return []
    return [f"WARNING: {unusable(run.problems)} (table problems)"]


def recall_markdown(run: Run) -> str:
    """The table for Prefect's artifact page."""
    lines = [f"**{as_markdown(_protocol(run))}**", ""]
    lines += markdown_table(header_of(run), recall_rows(run))
    told = [f"- {as_markdown(line)}" for line in gallery_lines(run)]
    return "\n".join([*lines, "", *told])


def _metrics(run: Run) -> dict[tuple[str, str, int], dict[str, dict[str, Any]]]:
    """Rows of the table ``metrics`` by category, metric and k, and then by stage; the categories
    in their order."""
    rows = run.evaluated.read("metrics").to_pylist()
    found: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["category"], row["metric"], row["k"]), {})[row["stage"]] = row
    places = {name: place for place, name in enumerate(dict.fromkeys(key[0] for key in found))}
    return dict(sorted(found.items(), key=lambda item: places[item[0][0]]))


def _export_command(run: Run) -> str:
    format_ = format_of(run.evaluated.ingested.setting("dataset"))
    words = ["cir-pipeline", "export", "--format", format_, "--run", run.run_id]
    words += [] if run.evaluated.is_reranked else ["--stage", "stage1"]
    return shlex.join([*words, "--store", str(run.evaluated.store)])


def _protocol(run: Run) -> str:
    protocol, k = run.evaluated.setting("protocol"), run.evaluated.setting("k")
    of = "" if run.evaluated.is_reranked else " of stage 1"
    return f"Recall{of} in %, protocol {protocol}, K = {k}"


def _cell(metric: dict[str, Any] | None, stage: str) -> str:
    if metric is None:
        return ""
    if stage != "gain":
        return _percent(metric["value"])
    return with_interval(metric["value"], metric["ci_low"], metric["ci_high"])


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
