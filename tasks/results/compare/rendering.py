"""A comparison as Markdown, as LaTeX, and for programs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from tasks.results.compare.answers import Answers
from tasks.results.compare.cells import INFINITE, NONE, TextTable, Told
from tasks.results.compare.comparable import Differing
from tasks.results.compare.comparison import Comparison, Difference, PairOfRuns
from tasks.results.markup.latex import as_latex
from tasks.results.markup.markdown import as_markdown

SIGNS = {"{-}": "$-$", NONE: "--", INFINITE: "$\\infty$"}
"""Of our own cells of numbers, in LaTeX."""


def markdown(told: Told) -> str:
    """Tables under each other, with all that is to be known of them."""
    lines = [f"**{as_markdown(told.heading)}**", ""]
    lines += [f"- **{as_markdown(text)}**" for text in told.warnings]
    lines += [""] * bool(told.warnings)
    for table in told.tables:
        lines += [as_markdown(table.title), "", *_markdown_table(table), ""]
    return "\n".join([*lines, *(f"- {as_markdown(text)}" for text in told.notes), ""])


def _markdown_table(table: TextTable) -> Iterable[str]:
    yield _markdown_line(map(as_markdown, table.headings))
    yield _markdown_line(
        "---" if place < table.left else "---:" for place in range(len(table.headings))
    )
    for row in table.rows:
        yield _markdown_line(map(as_markdown, row))


def _markdown_line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def latex(told: Told) -> str:
    """Tables under each other; all else as comments before them."""
    lines = ["% needs \\usepackage{booktabs,textcomp} and \\usepackage[T1]{fontenc}"]
    lines += [f"% {as_latex(text)}" for text in (told.heading, *told.warnings, *told.notes)]
    for table in told.tables:
        numbers = len(table.headings) - table.left
        lines += [
            f"% {as_latex(table.title)}",
            f"\\begin{{tabular}}{{{'l' * table.left}{'r' * numbers}}}",
            "\\toprule",
            _latex_line(table.headings, len(table.headings)),
            "\\midrule",
            *(_latex_line(row, table.left) for row in table.rows),
            "\\bottomrule",
            "\\end{tabular}",
        ]
    return "\n".join([*lines, ""])


def _latex_line(texts: Sequence[str], left: int) -> str:
    """Words are set as they are; numbers have signs of mathematics."""
    words, numbers = map(as_latex, texts[:left]), [as_latex(text) for text in texts[left:]]
    for sign, command in SIGNS.items():
        numbers = [text.replace(sign, command) for text in numbers]
    return f"{' & '.join([*words, *numbers])} \\\\"


def summary(
    comparison: Comparison, differing: Sequence[Differing], told: Told, *, worded: int
) -> dict[str, Any]:
    """For programs: fractions, and all pairs of runs, by their ids."""
    ids = [each.run.run_id for each in comparison.answers]
    return {
        "comparable": not differing,
        "differing": [{"what": one.what, "values": dict(one.values)} for one in differing],
        "worded_differently": worded,
        "warnings": list(told.warnings),
        "queries": comparison.labelled,
        "tests": comparison.tests,
        "rounds": comparison.asked.rounds,
        "persistence": comparison.asked.persistence,
        "runs": [_run(each) for each in comparison.answers],
        "measures": [
            asdict(one.measure)
            | {
                "values": [
                    {"run": run} | interval._asdict()
                    for run, interval in zip(ids, one.values, strict=True)
                ],
                "best": ids[one.best],
                "tied_with_best": [ids[place] for place in sorted(one.tied)],
            }
            for one in comparison.standings
        ],
        "pairs": [_pair(pair, ids) for pair in comparison.pairs],
    }


def _run(each: Answers) -> dict[str, Any]:
    run, label = each.run, each.run.label
    labels = run.ingested.read("queries", ["targets"])["targets"]
    return {
        "run_id": run.run_id,
        "name": label.name,
        "tags": label.tags,
        "stage": each.stage,
        "k": run.setting("k"),
        "dataset": run.ingested.setting("dataset"),
        "split": run.ingested.setting("split"),
        "protocol": run.ingested.protocol.name,
        "labelled": len(labels) - labels.null_count,
    }


def _pair(pair: PairOfRuns, ids: Sequence[str]) -> dict[str, Any]:
    return {
        "first": ids[pair.first],
        "second": ids[pair.second],
        "by_rank": pair.by_rank._asdict(),
        "overlap": None if pair.overlap is None else asdict(pair.overlap),
        "differences": [_difference(one) for one in pair.differences],
    }


def _difference(one: Difference) -> dict[str, Any]:
    return (
        asdict(one.measure)
        | one.interval._asdict()
        | {"p": one.p, "p_holm": one.p_holm, "exact": one.rounds is None}
        | one.outcome._asdict()
        | {"odds": _finite(one.outcome.odds), "d_z": _finite(one.d_z)}
    )


def _finite(number: float | None) -> float | None:
    """JSON has no infinity; wins, losses and the difference say which one it is."""
    return number if number is not None and math.isfinite(number) else None
