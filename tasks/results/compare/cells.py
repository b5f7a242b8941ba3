"""A comparison as tables of texts, without any markup."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cir_core.metrics.bootstrap import FEW
from cir_core.metrics.effects import Outcome
from cir_core.metrics.multiplicity import LEVEL
from tasks.results.compare.answers import Answers
from tasks.results.compare.comparable import Differing
from tasks.results.compare.comparison import Comparison, Difference, PairOfRuns, Standing
from tasks.results.titles import STAGES
from tasks.results.wording import counted, with_interval

NONE, INFINITE = "\N{EN DASH}", "\N{INFINITY}"
BEST, TIED = "*", "="
SMALLEST = 1e-4
"""Of a p-value that is told in digits."""


@dataclass(frozen=True)
class TextTable:
    """The first ``left`` columns hold words, the others numbers."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int


@dataclass(frozen=True)
class Told:
    """All that is said of a comparison: a heading, warnings, a verdict, tables, and how to read
    them. There is no verdict on runs that are not of the same task."""

    heading: str
    warnings: Sequence[str]
    verdict: Sequence[str]
    tables: Sequence[TextTable]
    notes: Sequence[str]


def called(answers: Answers) -> str:
    """A run's name, or its id."""
    return answers.run.label.name or answers.run.run_id


def told(
    comparison: Comparison, differing: Sequence[Differing], *, worded: int, every_pair: bool = False
) -> Told:
    """Of the pairs those with the first run, or every one. ``worded`` queries have other texts in
    some run."""
    pairs = [pair for pair in comparison.pairs if every_pair or pair.first == 0]
    tables = [_values(comparison)]
    if comparison.standings:
        tables.append(_differences(comparison, pairs))
    tables.append(_orders(comparison, pairs))
    return Told(
        _heading(comparison, differing),
        [*_warnings(comparison, differing, worded)],
        [] if differing else [*verdict(comparison)],
        tables,
        [*_notes(comparison, len(pairs))],
    )


def verdict(comparison: Comparison) -> Iterator[str]:
    """In sentences: by each measure the best run, and those that no test tells from it; together
    the measures that tell no run from the best. Nothing without labels."""
    everyone = frozenset(range(len(comparison.answers)))
    alike = [one for one in comparison.standings if one.tied | {one.best} == everyone]
    for one in comparison.standings:
        if one not in alike:
            yield _standing(comparison, one)
    if alike:
        measures = ", ".join(one.measure.title for one in alike)
        yield f"No test tells any run from the best by {measures}: that does not make them equal."


def _standing(comparison: Comparison, one: Standing) -> str:
    def names(places: Iterable[int]) -> str:
        return ", ".join(f"“{called(comparison.answers[place])}”" for place in sorted(places))

    tied = one.tied - {one.best}
    behind = {*range(len(comparison.answers))} - tied - {one.best}
    return (
        f"By {one.measure.title}, {names([one.best])} is the best, "
        f"{100 * one.values[one.best].value:.2f}\N{NO-BREAK SPACE}%, and tests tell it from "
        f"{names(behind)}" + f", but not from {names(tied)}" * bool(tied) + "."
    )


def _heading(comparison: Comparison, differing: Sequence[Differing]) -> str:
    source = comparison.answers[0].run.ingested
    apart = {one.what for one in differing}
    of = NONE if "split" in apart else f"{source.setting('dataset')} {source.setting('split')}"
    protocol = "different protocols" if "protocol" in apart else f"protocol {source.protocol.name}"
    shared = " that all runs share" if differing else ""
    return f"{of}, {protocol}, {_labelled(comparison)}{shared}"


def _labelled(comparison: Comparison) -> str:
    return counted(comparison.labelled, "labelled query", "labelled queries")


def _warnings(comparison: Comparison, differing: Sequence[Differing], worded: int) -> Iterator[str]:
    if differing:
        yield (
            f"NOT THE SAME: the runs differ in {', '.join(one.what for one in differing)}. "
            f"This compares the {_labelled(comparison)} that all runs share; which run is better "
            "is not told by numbers of different tasks"
        )
        for one in differing:
            values = "; ".join(f"{run}: {value}" for run, value in one.values.items())
            yield f"{one.what}: {values}"
    if worded:
        told = counted(worded, "shared query", "shared queries")
        yield f"worded differently in some run: {told}"
    if not comparison.standings:
        yield "the queries have no labels: nothing is measured, orders alone are compared"
    stages = {each.stage for each in comparison.answers}
    if len(stages) > 1:
        yield "some runs re-ranked nothing: theirs is stage 1's order, the others' is stage 2's"
    floor = comparison.tests / (comparison.asked.rounds + 1)
    drawn = any(one.rounds for pair in comparison.pairs for one in pair.differences)
    if drawn and floor > LEVEL:
        yield (
            f"{comparison.asked.rounds:,} rounds are too few for "
            f"{counted(comparison.tests, 'test')}: "
            "those that are drawn cannot fall below 5 %; raise --rounds"
        )


def _values(comparison: Comparison) -> TextTable:
    headings = ["run", "name", "order", "K", "queries"]
    rows = []
    for place, each in enumerate(comparison.answers):
        run = each.run
        head = [run.run_id, run.label.name or "", STAGES[each.stage]]
        head += [str(run.setting("k")), f"{each.labelled:,}"]
        cells = []
        for one in comparison.standings:
            sign = BEST if place == one.best else TIED if place in one.tied else " "
            cells.append(f"{100 * one.values[place].value:.2f} {sign}")
        rows.append([*head, *cells])
    measures = [one.measure.title for one in comparison.standings]
    title = "Runs" + f": in %, {BEST} the best, {TIED} tied with it" * bool(measures)
    return TextTable(title, headings + measures, rows, 3)


def _differences(comparison: Comparison, pairs: Sequence[PairOfRuns]) -> TextTable:
    headings = ["run", "against", "measure", "difference [95 %]", "p", "p (Holm)"]
    headings += ["wins", "losses", "ties", "wins/loss", "d_z"]
    rows = [
        [*_of(comparison, pair), one.measure.title, *_difference(one)]
        for pair in pairs
        for one in pair.differences
    ]
    return TextTable("Differences in points, the first run minus the other", headings, rows, 3)


def _orders(comparison: Comparison, pairs: Sequence[PairOfRuns]) -> TextTable:
    headings = ["run", "against", "target higher", "lower", "same", "RBO", "same first", "queries"]
    rows = []
    for pair in pairs:
        cells = [f"{count:,}" for count in pair.by_rank] if comparison.standings else [NONE] * 3
        overlap = pair.overlap
        cells += (
            [NONE] * 3
            if overlap is None
            else [f"{overlap.rbo:.3f}", f"{100 * overlap.same_first:.2f}", f"{overlap.n:,}"]
        )
        rows.append([*_of(comparison, pair), *cells])
    return TextTable("Orders: ranks of the target, and how alike the lists are", headings, rows, 2)


def _of(comparison: Comparison, pair: PairOfRuns) -> list[str]:
    return [called(comparison.answers[place]) for place in (pair.first, pair.second)]


def _difference(one: Difference) -> list[str]:
    return [
        with_interval(*one.interval),
        _p(one.p),
        _p(one.p_holm),
        *(f"{count:,}" for count in one.outcome),
        _odds(one.outcome),
        f"{one.d_z:+.3f}" if math.isfinite(one.d_z) else INFINITE,
    ]


def _p(p: float) -> str:
    return f"< {SMALLEST:.4f}" if p < SMALLEST else f"{p:.4f}"


def _odds(outcome: Outcome) -> str:
    odds = outcome.odds
    if odds is None:
        return NONE
    return INFINITE if math.isinf(odds) else f"{odds:.2f}"


def _notes(comparison: Comparison, shown: int) -> Iterator[str]:
    asked, pairs = comparison.asked, len(comparison.pairs)
    if comparison.standings:
        told = counted(pairs, "pair of runs", "pairs of runs")
        yield (
            "Macro averages over categories. p: two-sided paired randomisation test (signs of the "
            "queries' differences), exact where all signs can be tried, else of "
            f"{asked.rounds:,} drawn; p (Holm): allows for all {comparison.tests:,} tests "
            f"({counted(len(comparison.standings), 'measure')} x {told}). {TIED}: no test "
            f"tells the run from the best at {100 * LEVEL:.0f} %, which does not make them equal."
        )
        yield (
            "Intervals: paired bootstrap within categories, each for itself, not corrected; of "
            f"fewer than {FEW} differing queries Bonett and Price's. wins, losses: queries whose "
            "value is higher or lower; d_z: difference by the standard deviation of differences."
        )
    yield (
        f"RBO: rank-biased overlap, extrapolated, p = {asked.persistence:g}, of the candidates' "
        "final orders as far as each goes; tied scores stand in gallery order. same first: % of "
        "queries with the same first image."
    )
    if shown < pairs:
        yield f"Shown are pairs with the first run: all {pairs:,} are on the page and in JSON."
