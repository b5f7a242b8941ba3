"""A comparison as Markdown, as LaTeX, and for programs."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tasks.results.compare.answers import Answers
from tasks.results.compare.cells import Told
from tasks.results.compare.comparable import Differing
from tasks.results.compare.comparison import Comparison, Difference, PairOfRuns
from tasks.results.markup.latex import NEEDS, as_latex, tabular
from tasks.results.markup.markdown import as_markdown, markdown_table


def markdown(told: Told) -> str:
    """Tables under each other, with all that is to be known of them."""
    lines = [f"**{as_markdown(told.heading)}**", ""]
    lines += [f"- **{as_markdown(text)}**" for text in told.warnings]
    lines += [""] * bool(told.warnings)
    lines += [line for text in told.verdict for line in (as_markdown(text), "")]
    for table in told.tables:
        lines += [
            as_markdown(table.title),
            "",
            *markdown_table(table.headings, table.rows, left=table.left),
            "",
        ]
    return "\n".join([*lines, *(f"- {as_markdown(text)}" for text in told.notes), ""])


def latex(told: Told) -> str:
    """Tables under each other; all else as comments before them."""
    lines = [NEEDS]
    comments = told.heading, *told.warnings, *told.verdict, *told.notes
    lines += [f"% {as_latex(text)}" for text in comments]
    for table in told.tables:
        lines += [f"% {as_latex(table.title)}"]
        lines += tabular(table.headings, table.rows, left=table.left)
    return "\n".join([*lines, ""])


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
    return {
        "run_id": run.run_id,
        "name": label.name,
        "tags": label.tags,
        "stage": each.stage,
        "k": run.setting("k"),
        "dataset": run.ingested.setting("dataset"),
        "split": run.ingested.setting("split"),
        "protocol": run.ingested.protocol.name,
        "labelled": each.labelled,
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
