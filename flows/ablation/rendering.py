"""The table of an ablation, as a page, as Markdown, as LaTeX, and for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flows.ablation.table import Recall, Table, TableRow
from tasks.results.markup.latex import NEEDS, as_latex, tabular
from tasks.results.markup.markdown import as_markdown, markdown_table
from tasks.results.report.page import Page
from tasks.results.titles import RECALLS, title_of
from tasks.results.wording import counted, gallery_told, with_interval

PAGE = "index.html"
FILES = (PAGE, "table.md", "table.tex", "table.json")

NONE = "\N{EN DASH}"

STYLES = "page.css", "ablation.css"

RECALLS_FROM = 3
"""The first of a row's cells that holds a recall; each has its gain beside it."""

READING = (
    "Recall in %, macro averages over categories; of several seeds the mean, ± its standard "
    "deviation from seed to seed. Δ: paired difference to the first row in points, with its 95 % "
    "interval over queries (of several seeds their mean), which says nothing of other trainings.",
    "Pairs a second and memory: stage 2 alone, its images seen and queries fused, timed on a "
    "sample of the row's own pairs, each row in a fresh process, one after the other. GFLOP a "
    "pair: counted over all of the row's pairs. Own parameters: without the image encoder.",
    "Training: wall time of steps, and + of validations; of several seeds the mean.",
)


def headings(table: Table) -> list[str]:
    """One for each of a row's ``cells``."""
    gain = f"Δ [95 %], n = {table.queries:,}"
    titles = [title_of(RECALLS[pool], k) for pool, k in table.measures]
    recalls = [told for title in titles for told in (title, gain)]
    model = ["own parameters", "parameters", "peak memory", "training"]
    return ["variant", "K", "precision", *recalls, "pairs/s", "GFLOP/pair", *model]


def cells(table: Table, row: TableRow) -> list[str]:
    """Texts without any markup."""
    is_first = row is table.rows[0]
    recalls = [
        text
        for one in row.recall.values()
        for text in (
            _recall(one),
            NONE if is_first else with_interval(one.gain, one.gain_low, one.gain_high),
        )
    ]
    k = NONE if row.k is None else str(row.k)
    return [row.name, k, row.precision or NONE, *recalls, *_scoring(row), _training(row)]


def captions(table: Table) -> list[str]:
    """What the numbers are of, and how to read them."""
    galleries = "; ".join(f"{name} {gallery_told(one)}" for name, one in table.galleries.items())
    seeds = sorted({seed for row in table.rows for seed in row.seeds})
    threads = sorted({row.scoring.threads for row in table.rows if row.scoring})
    told = f"{table.dataset} {table.split}, protocol {table.protocol}, "
    told += f"{counted(table.queries, 'query', 'queries')}; galleries: {galleries}; "
    told += f"seeds {', '.join(map(str, seeds)) or NONE}; "
    told += f"threads of scoring: {', '.join(map(str, threads)) or NONE}."
    return [told, *READING]


def render(table: Table, *, title: str) -> dict[str, str]:
    """Every file's text by its name."""
    rows = [cells(table, row) for row in table.rows]
    return {
        PAGE: _page(table, rows, title),
        "table.md": _markdown(table, rows),
        "table.tex": _latex(table, rows),
        "table.json": json.dumps(summary(table), indent=1) + "\n",
    }


def summary(table: Table) -> dict[str, Any]:
    """For programs: fractions, seconds, bytes."""
    told = asdict(table)
    for row, of_row in zip(table.rows, told["rows"], strict=True):
        of_row["recall"] = [
            {"pool": pool, "k": k} | asdict(recall) for (pool, k), recall in row.recall.items()
        ]
    return told


def _markdown(table: Table, rows: Sequence[Sequence[str]]) -> str:
    lines = markdown_table(headings(table), rows, left=1)
    return "\n".join([*lines, "", *map(as_markdown, captions(table)), ""])


def _latex(table: Table, rows: Sequence[Sequence[str]]) -> str:
    told = (f"% {as_latex(text)}" for text in captions(table))
    return "\n".join([NEEDS, *told, *tabular(headings(table), rows, left=1), ""])


def _page(table: Table, rows: Sequence[Sequence[str]], title: str) -> str:
    """A gain stands below its recall: a column for each would be too wide for a screen."""
    facts, *reading = captions(table)
    heads, first, last = headings(table), RECALLS_FROM, RECALLS_FROM + 2 * len(table.measures)
    content: Mapping[str, Any] = {
        "title": title,
        "facts": facts,
        "headings": heads[:first] + heads[first:last:2] + heads[last:],
        "gain": heads[first + 1],
        "rows": [
            {
                "named": row[:first],
                "recalls": zip(row[first:last:2], row[first + 1 : last : 2], strict=True),
                "costs": row[last:],
                "runs": one.runs,
                "models": one.models,
            }
            for row, one in zip(rows, table.rows, strict=True)
        ],
        "reading": reading,
    }
    return Page().render(
        "ablation.html.j2",
        content,
        title=f"cir-pipeline: ablation {title}",
        styles=STYLES,
    )


def _recall(one: Recall) -> str:
    spread = "" if one.spread is None else f" ± {100 * one.spread:.2f}"
    return f"{100 * one.value:.2f}{spread}"


def _scoring(row: TableRow) -> list[str]:
    cost = row.scoring
    if cost is None:
        return [NONE] * 5
    millions = (f"{count / 1e6:,.2f} M" for count in (cost.own_parameters, cost.parameters))
    memory = f"{cost.peak_memory / 2**30:.2f} GiB"
    rate = f"{cost.pairs_per_second:,.0f}"
    return [rate, f"{cost.flops_per_pair / 1e9:.3g}", *millions, memory]


def _training(row: TableRow) -> str:
    cost = row.training
    if cost is None:
        return NONE
    told = f"{cost.seconds / 60:,.1f} + {cost.validation_seconds / 60:,.1f} min"
    return f"{told}, from step {cost.since_step} on" if cost.since_step else told
