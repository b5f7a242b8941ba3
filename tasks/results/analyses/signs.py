"""The signs by which failed queries are told apart: of each its rule, its numbers, what helps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cir_core.metrics.significance import wins_interval
from tasks.results.analyses.analysis import Row
from tasks.results.wording import counted, is_reranked, late_fusion

NEAR = 5
"""A target up to this rank is nearly first."""

DISCORD = 0.1
"""Spearman's correlation of the two stages' orders, up to which their models hardly agree."""

Counts = Mapping[str, Any]
"""Of a run's labelled queries: see ``signatures.counts_sql``."""


class Told(NamedTuple):
    """``numbers`` are told beside the rule."""

    rule: str
    numbers: str
    advice: str


@dataclass(frozen=True)
class Sign:
    """Borne by the queries that ``counts`` has under this name."""

    name: str
    counts: str
    told: Callable[[Mapping[str, Any], Counts], Told]


@dataclass(frozen=True)
class Found:
    """A sign, of so many of the labelled queries of a run."""

    name: str
    queries: int
    share: float
    told: Told

    @property
    def row(self) -> Row:
        advice = self.told.advice if self.queries else ""
        return {
            "signature": self.name,
            "queries": self.queries,
            "share": self.share,
            **self.told._asdict(),
            "advice": advice,
        }


def found(run: Mapping[str, Any], counts: Counts) -> list[Found]:
    """The most frequent first; at least one labelled query."""
    signs = [
        Found(
            sign.name,
            counts[sign.counts],
            counts[sign.counts] / counts["labelled"],
            sign.told(run, counts),
        )
        for sign in signs_of(run)
    ]
    return sorted(signs, key=lambda sign: -sign.queries)


def signs_of(run: Mapping[str, Any]) -> Sequence[Sign]:
    """Those that a run can bear: of stage 1 alone, none of two stages."""
    return [sign for sign in SIGNS if is_reranked(run) or sign.told is not _stages_disagree]


def _low_coverage(run: Mapping[str, Any], counts: Counts) -> Told:
    lost, near, k = counts["lost"], counts["lost_by_little"], run["k"]
    if run["coverage_asked"] is not None:
        advice = f"Ask for more than {run['coverage_asked']:g}: a higher `--coverage`."
    elif run["first_stage"] == "candidates":
        advice = "Hand over more candidates a query, or those of a better first stage."
    elif 2 * near >= lost:
        advice = f"Filtering is too strict: `-k {2 * k}` keeps {near:,} of these targets."
    else:
        advice = (
            f"Stage 1 is at fault, not K: `-k {2 * k}` keeps {near:,} of these targets. Use or "
            "train a better stage 1."
        )
    median = counts["lost_rank"]
    return Told(
        rule="the target is not among the candidates, though the query could be answered",
        numbers="" if median is None else f"stage 1 ranks half of them {median:,} or better",
        advice=advice,
    )


def _poor_order(run: Mapping[str, Any], counts: Counts) -> Told:
    near = f"{counts['nearly_first']:,} of them at rank {NEAR} or better"
    rule = "the target is a candidate, and not first in the end"
    if not is_reranked(run):
        return Told(rule, near, "Re-rank: run a stage 2.")
    return Told(
        rule,
        numbers=f"{near}; {counts['moved_down']:,} moved down by stage 2",
        advice="Coverage is there, stage 2's order is what lacks: train stage 2 longer or on more, "
        "or compare its variants (docs/ablations.md). Near-duplicates may be right, too: look at "
        "some.",
    )


def _stages_disagree(run: Mapping[str, Any], counts: Counts) -> Told:
    lost, won, agreement = counts["unseated"], counts["found"], counts["agreement"]
    gain = wins_interval(won, lost, counts["labelled"])
    if gain.high < 0:
        advice = (
            "Stage 2 unseats more right answers than it finds: the two models may be no pair. "
            "Check that stage 2 was trained after this stage 1, and add stage 1's score "
            f"({late_fusion(run)})."
        )
    elif gain.low > 0:
        advice = "Re-ranking pays: it finds more right answers than it unseats."
    else:
        advice = (
            "Whether stage 2 finds more right answers than it unseats, these queries do not show."
        )
    if agreement is not None and agreement <= DISCORD and gain.high >= 0:
        advice += (
            " The orders hardly agree: a late fusion may keep the best of both "
            f"({late_fusion(run)})."
        )
    told = "" if agreement is None else f"; median Spearman of the orders {agreement:.2f}"
    return Told(
        rule="stage 1 had the target first, stage 2 has not",
        numbers=f"the other way round {won:,}{told}",
        advice=advice,
    )


def _reference_first(run: Mapping[str, Any], counts: Counts) -> Told:
    behind = counts["behind_reference"]
    return Told(
        rule="the first answer is the query's own reference",
        numbers=f"in {behind:,} of them the target is second",
        advice="The text is not heard: a protocol that removes the reference (`--protocol`) "
        f"answers {counted(behind, 'query', 'queries')} more, and its numbers are another "
        "protocol's. Otherwise train with the reference among the negatives.",
    )


def _hubs(run: Mapping[str, Any], counts: Counts) -> Told:
    most = counts["hub_most"]
    told = (
        f", the largest among the first 10 of {counted(most, 'query', 'queries')}" if most else ""
    )
    return Told(
        rule="the first answer is wrong, and an image that is among the first 10 of unusually many "
        "queries (its gallery's mean and two standard deviations)",
        numbers=f"{counted(counts['hubs'], 'hub')}{told}",
        advice="Look at these images: generic pictures, collages, text, copies of each other. "
        "Remove what should not be in the gallery; else train stage 1 with larger batches.",
    )


SIGNS = (
    Sign("low coverage", "lost", _low_coverage),
    Sign("poor order", "misplaced", _poor_order),
    Sign("stages disagree", "unseated", _stages_disagree),
    Sign("reference first", "reference_first", _reference_first),
    Sign("hubs", "behind_hub", _hubs),
)
