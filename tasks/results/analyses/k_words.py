"""What the curve of K says, in words, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from cir_core.metrics.k_choice import KCurve, affordable, best, enough, macro, reaching
from cir_core.protocols import PROTOCOLS
from tasks.results.titles import title_of
from tasks.results.wording import (
    counted,
    is_reranked,
    more_candidates,
    percent,
    sentences,
)

FORECAST = (
    "What another K takes in FLOPs and time, `cir-pipeline plan -k K` tells, with the options of "
    "the run."
)
"""Neither grows with the pairs alone: a query is begun once, and an image is seen once."""


def answer(
    curve: KCurve, run: Mapping[str, Any], ceilings: Sequence[float], budget: int | None
) -> str:
    """What is enough, what reaches the ceilings, what the budget of pairs buys; and what is not
    told, with its reason."""
    return sentences(
        _told_of_adaptive(run),
        _told_of_enough(curve),
        *(_told_of_ceiling(curve, one) for one in ceilings),
        "" if budget is None else _told_of_budget(curve, budget),
        _told_of_order(run),
    )


def _told_of_adaptive(run: Mapping[str, Any]) -> str:
    """What a K means where queries have fewer candidates than that."""
    if run["coverage_asked"] is None:
        return ""
    return (
        "K is adaptive: here it is the most that a query has of its own candidates, so that a run "
        "of a fixed K scores more pairs."
    )


def _told_of_enough(curve: KCurve) -> str:
    place, last = enough(curve), len(curve.ks) - 1
    if place is None:
        return ""
    share = curve.pairs[place] / curve.pairs[last]
    told = (
        f"K = {curve.ks[place]} is the smallest with which every recall@k is within the 95 % "
        f"interval of its best over all K up to {curve.ks[last]}: "
        f"{counted(int(curve.pairs[place]), 'pair')}, {percent(share)} of this run's."
    )
    highest = [
        f"{title_of('recall', k)} {percent(macro(of_k)[best(curve, k)])} at K = "
        f"{curve.ks[best(curve, k)]} ({percent(macro(of_k)[last])} at {curve.ks[last]})"
        for k, of_k in curve.recall.items()
    ]
    return f"{told} Highest are {', '.join(highest)}."


def _told_of_ceiling(curve: KCurve, ceiling: float) -> str:
    place = reaching(curve, ceiling)
    if place is None:
        reached = percent(macro(curve.coverage)[-1])
        return (
            f"No K up to {curve.ks[-1]} has {100 * ceiling:g} % of the targets among the "
            f"candidates: the ceiling is {reached}."
        )
    return (
        f"With K = {curve.ks[place]}, {100 * ceiling:g} % of the targets are among the candidates "
        f"({counted(int(curve.pairs[place]), 'pair')})."
    )


def _told_of_budget(curve: KCurve, budget: int) -> str:
    place = affordable(curve, budget)
    if place is None:
        return f"One candidate a query takes {curve.pairs[0]:,} pairs, more than {budget:,}."
    return f"A budget of {counted(budget, 'pair')} buys K = {curve.ks[place]}."


def _told_of_order(run: Mapping[str, Any]) -> str:
    """What is not told, and why."""
    if not is_reranked(run):
        return "Nothing was re-ranked: there is a ceiling, and no recall below it."
    if run["late_fusion_scores"] == "standardised":
        return (
            "Recall is not told for other K: this run's late fusion standardises scores over a "
            "query's candidates, so the order itself depends on K."
        )
    told = {
        "none": "",
        "scored": "The subset's recall does not depend on K: its members are scored in any case.",
        "main_order": "The subset's recall is not told for other K: it follows the main order.",
    }
    return told[PROTOCOLS[run["protocol"]].subset]


def advice(curve: KCurve, run: Mapping[str, Any]) -> str:
    """Another K, or what comes before one."""
    place, last = enough(curve), len(curve.ks) - 1
    if not macro(curve.coverage)[last]:
        return (
            "No target is among the candidates: a better stage 1, or "
            f"{more_candidates(run)}, comes first."
        )
    if run["coverage_asked"] is not None:
        return (
            "How many candidates queries have is set by `--coverage`: try others. What a fixed K "
            "gives, a run of a fixed K tells."
        )
    if not curve.recall:
        see = "Fuse raw scores (`--late-fusion-scores raw`)" if is_reranked(run) else "Re-rank"
        return f"{see}, to see which K is enough; the ceiling alone says what K can cost."
    if place is None:
        return "No K is best for every recall@k: choose one for the recall that counts."
    if place == last:
        return (
            f"Try {more_candidates(run)}: no K below {curve.ks[last]} is as good. Images stay "
            f"encoded; all pairs are scored anew. {FORECAST}"
        )
    is_file = run["first_stage"] == "candidates"
    return sentences(
        f"As far as these queries tell, fewer candidates do: `-k {curve.ks[place]}`.",
        "" if is_file else "Or let each query have as many as it needs: `-k auto`.",
        FORECAST,
    )
