"""How many candidates are worth re-ranking? Recall, its ceiling and the pairs for every K."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cir_core.metrics.k_choice import KCurve, affordable, best, enough, reaching
from cir_core.metrics.recall import AVERAGE, MICRO
from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis, Column, Figure, Numbers, asked
from tasks.results.analyses.k_words import advice, answer
from tasks.results.titles import title_of
from tasks.results.wording import UNLABELLED, of_run

CEILINGS = (0.95, 0.99)
"""Of which it is told how many candidates they take."""

STEPS = ("1", "2", "3", "5", "7")
"""First digits of the K that are told of the whole range, with zeros after them."""

QUESTION = "How many candidates are worth re-ranking?"


def k_curve(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """Of several categories, macro averages."""
    return chosen_ks(catalog, run, ceilings=CEILINGS)


def chosen_ks(
    catalog: OpenCatalog,
    run: Mapping[str, Any],
    *,
    ceilings: Sequence[float],
    budget: int | None = None,
) -> Analysis:
    """As ``k_curve``, for these ceilings, fractions, and for a budget of pairs."""
    with catalog.holding("k_curve", of_run(run)):
        return _chosen(catalog, run, ceilings, budget)


def _chosen(
    catalog: OpenCatalog, run: Mapping[str, Any], ceilings: Sequence[float], budget: int | None
) -> Analysis:
    curve = read_curve(catalog, run)
    if curve is None:
        return Analysis("k_curve", QUESTION, missing=UNLABELLED)
    if not curve.pairs[-1]:
        return Analysis("k_curve", QUESTION, missing="No query has candidates: see the problems.")
    choices = _choices(curve, ceilings, budget)
    return Analysis(
        "k_curve",
        QUESTION,
        answer=answer(curve, run, ceilings, budget),
        advice=advice(curve, run),
        figures=[_figure(catalog, run, curve)],
        numbers=[
            _numbers(catalog, run, curve, "Chosen K", choices),
            _numbers(catalog, run, curve, "Over the whole range", _range(curve)),
        ],
    )


def read_curve(catalog: OpenCatalog, run: Mapping[str, Any]) -> KCurve | None:
    """None of a run without labels."""
    rows = catalog.rows(
        f"SELECT k_candidates, k, category, recall, coverage, n, pairs FROM k_curve\n"
        f"WHERE {of_run(run)} AND category NOT IN ('{AVERAGE}', '{MICRO}')\n"
        "ORDER BY k, k_candidates, category"
    )
    if not rows:
        return None
    ks, categories = (list(dict.fromkeys(row[name] for row in rows)) for name in ("k", "category"))
    cube = {
        name: np.array([row[name] for row in rows]).reshape(len(ks), -1, len(categories))
        for name in ("k_candidates", "coverage", "n", "pairs", "recall")
    }
    is_known = rows[0]["recall"] is not None
    return KCurve(
        categories=categories,
        ks=cube["k_candidates"][0, :, 0],
        pairs=cube["pairs"][0].sum(axis=1),
        coverage=cube["coverage"][0],
        recall={k: cube["recall"][place] for place, k in enumerate(ks) if is_known},
        n=cube["n"][0, 0],
    )


# --- which K


def _choices(curve: KCurve, ceilings: Sequence[float], budget: int | None) -> list[tuple[str, int]]:
    """What K are chosen for, and their places."""
    chosen: dict[str, int | None] = {
        f"ceiling of {100 * one:g} %": reaching(curve, one) for one in ceilings
    }
    chosen["as good as any"] = enough(curve)
    chosen |= {f"best {title_of('recall', k)}": best(curve, k) for k in curve.recall}
    if budget is not None:
        chosen[f"within {budget:,} pairs"] = affordable(curve, budget)
    chosen["this run"] = len(curve.ks) - 1
    return [(name, place) for name, place in chosen.items() if place is not None]


# --- what is shown


def _range(curve: KCurve) -> list[tuple[str, int]]:
    """Some K of all sizes, and the last."""
    places = [place for place, k in enumerate(curve.ks) if str(k).rstrip("0") in STEPS]
    return [("", place) for place in sorted({*places, len(curve.ks) - 1})]


def _numbers(
    catalog: OpenCatalog,
    run: Mapping[str, Any],
    curve: KCurve,
    title: str,
    chosen: Sequence[tuple[str, int]],
) -> Numbers:
    values = ", ".join(
        f"({number}, '{name}', {curve.ks[place]})" for number, (name, place) in enumerate(chosen)
    )
    recalls = "".join(f"       max(recall) FILTER (k = {k}) AS recall_{k},\n" for k in curve.recall)
    sql = (
        "SELECT choice, k_candidates, max(coverage) AS coverage,\n"
        f"{recalls}"
        "       max(pairs) AS pairs\n"
        "FROM k_curve\n"
        f"JOIN (VALUES {values}) chosen(number, choice, k_candidates) USING (k_candidates)\n"
        f"WHERE {of_run(run)} AND category = '{_shown(curve)}'\n"
        "GROUP BY number, choice, k_candidates ORDER BY number"
    )
    return Numbers(
        f"{title}: recall in %, {_shown(curve)}, protocol {run['protocol']}",
        [
            *([Column("choice", "chosen for")] if chosen[0][0] else []),
            Column("k_candidates", "K", "count"),
            Column("coverage", "ceiling", "percent"),
            *(Column(f"recall_{k}", title_of("recall", k), "percent") for k in curve.recall),
            Column("pairs", "pairs", "count"),
        ],
        **asked(catalog, sql),
    )


def _figure(catalog: OpenCatalog, run: Mapping[str, Any], curve: KCurve) -> Figure:
    where = f"FROM k_curve WHERE {of_run(run)} AND category = '{_shown(curve)}'"
    sql = (
        f"SELECT k_candidates AS x, recall AS y, 'R@' || k AS series, k {where}\n"
        "  AND recall IS NOT NULL\n"
        f"UNION ALL SELECT DISTINCT k_candidates, coverage, 'ceiling', 1000000 {where}\n"
        "ORDER BY k, x"
    )
    place = enough(curve)
    rules = {} if place is None else {f"K = {curve.ks[place]}": float(curve.ks[place])}
    return Figure(
        kind="line",
        x="candidates re-ranked a query (K)",
        y="recall",
        described="R@k and its ceiling, the share of targets among the candidates, over K.",
        rules=rules,
        is_percent=True,
        **asked(catalog, sql),
    )


def _shown(curve: KCurve) -> str:
    """The category of the view, quoted for SQL."""
    shown = AVERAGE if len(curve.categories) > 1 else curve.categories[0]
    return shown.replace("'", "''")
