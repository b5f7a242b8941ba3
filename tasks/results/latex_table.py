"""A run's numbers as a table of LaTeX, with what they are of in its caption."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cir_core.metrics.recall import AVERAGE, GAIN, MICRO
from storage.views import Evaluated
from tasks.results.markup.latex import NEEDS, as_latex, latex_row
from tasks.results.titles import CIRR_AVERAGE, STAGES, title_of
from tasks.results.wording import gallery_told, signed

Row = Mapping[str, Any]
Rows = Sequence[Row]
Measure = tuple[str, str, int]
"""Pool, metric, k."""

LATEX_FILE = "recall.tex"


def latex_table(evaluated: Evaluated) -> str:
    """A ``table`` of both stages and the gain with its 95 % interval (of stage 1 alone, with its
    own), by category and pool; micro averages are left out. Without labels, the caption says so.
    Raises StoreCorrupt when the run is not whole."""
    rows = [row for row in evaluated.read("metrics").to_pylist() if row["category"] != MICRO]
    galleries = evaluated.read("galleries").to_pylist()
    caption = " ".join(_caption(evaluated, rows, galleries))
    lines = [NEEDS, r"\begin{table}", r"\centering", f"\\caption{{{as_latex(caption)}}}"]
    lines += _tabular(rows, [one["category"] for one in galleries]) if rows else []
    return "\n".join([*lines, r"\end{table}", ""])


def _caption(evaluated: Evaluated, rows: Rows, galleries: Rows) -> Iterator[str]:
    source, protocol = evaluated.ingested, evaluated.ingested.protocol
    yield f"{source.setting('dataset')} {source.setting('split')}, protocol {protocol.name}:"
    thresholds = evaluated.candidates.thresholds
    assured = "" if thresholds is None else f" ({thresholds.guarantee})"
    yield f"{protocol.description}. K = {evaluated.setting('k')}{assured}."
    if rows:
        of = "the gain" if evaluated.is_reranked else "stage 1"
        yield f"In %, {of} with its 95 % interval, over all labelled queries."
        if any(row["metric"] == "cirr_average" for row in rows):
            yield f"{title_of('cirr_average', 0)}: {CIRR_AVERAGE}."
    else:
        yield "The queries have no labels: nothing is measured."
    told = (f"{one['category']} {gallery_told(one)}" for one in galleries)
    yield f"Galleries: {'; '.join(told)}. Run {evaluated.run_id}."


def _tabular(rows: Rows, categories: Sequence[str]) -> Iterator[str]:
    """A row for each measure: side by side, intervals are wider than a page."""
    found: dict[tuple[str, Measure], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["category"], _measure(row)), {})[row["stage"]] = row
    stages = [stage for stage in STAGES if any(stage in one for one in found.values())]
    heads = ["category", "measure", "queries", *(STAGES[stage] for stage in stages)]
    yield f"\\begin{{tabular}}{{llr{'r' * len(stages)}}}"
    yield r"\toprule"
    yield latex_row(map(as_latex, [*heads[:-1], f"{heads[-1]} [95 %]"]))
    for category in (*categories, AVERAGE):
        of_category = [one for one in found if one[0] == category]
        if of_category:
            yield r"\midrule"
        for one in of_category:
            is_first = one == of_category[0]
            queries = next(iter(found[one].values()))["n"]
            names = (category, title_of(*one[1][1:]), str(queries))
            told = names if is_first else ("", *names[1:2], "")
            cells = (
                _cell(found[one].get(stage), with_interval=stage == stages[-1]) for stage in stages
            )
            yield latex_row([*map(as_latex, told), *cells])
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _measure(row: Row) -> Measure:
    return row["pool"], row["metric"], row["k"]


def _cell(row: Row | None, *, with_interval: bool) -> str:
    """In percent, as mathematics: its minus is one."""
    if row is None:
        return ""
    tell = signed if row["stage"] == GAIN else "{:.2f}".format
    value, low, high = (tell(100 * row[name]) for name in ("value", "ci_low", "ci_high"))
    return f"${value}$ [${low}$, ${high}$]" if with_interval else f"${value}$"
