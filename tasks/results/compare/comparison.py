"""Runs compared: every measure of every pair, and which runs are tied with the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from cir_core.metrics.bootstrap import difference_intervals
from cir_core.metrics.effects import Outcome, outcome_of, standardised_difference
from cir_core.metrics.multiplicity import LEVEL, holm, tied_with_best
from cir_core.metrics.overlap import PERSISTENCE, rank_biased_overlap
from cir_core.metrics.randomisation import ROUNDS, macro_terms, sign_flip_tests
from cir_core.metrics.recall import grouped
from cir_core.metrics.significance import Interval, mean_interval
from tasks.results.compare.answers import Answers, Measure


@dataclass(frozen=True)
class Asked:
    """How to compare: rounds of a randomisation test that are drawn, and RBO's p."""

    rounds: int = ROUNDS
    persistence: float = PERSISTENCE


@dataclass(frozen=True)
class Difference:
    """The first run's measure minus the second's: a macro average over categories, as a fraction,
    with its 95 % interval; p of the test, alone and among all (``p_holm``); the queries whose value
    is higher, lower and the same; Cohen's d_z. ``rounds`` is None of an exact p."""

    measure: Measure
    interval: Interval
    p: float
    p_holm: float
    rounds: int | None
    outcome: Outcome
    d_z: float

    @property
    def is_sure(self) -> bool:
        """Whether the runs differ at ``LEVEL``, all tests together."""
        return self.p_holm <= LEVEL


@dataclass(frozen=True)
class Overlap:
    """Of two runs' orders of ``n`` queries: the mean rank-biased overlap and the share of queries
    with the same first image, macro averages over categories."""

    rbo: float
    same_first: float
    n: int


@dataclass(frozen=True)
class PairOfRuns:
    """Of the runs at two places. ``by_rank``: queries whose target the first ranks higher, lower
    and the same. ``overlap`` is None where no query has candidates in both."""

    first: int
    second: int
    differences: Sequence[Difference]
    by_rank: Outcome
    overlap: Overlap | None


@dataclass(frozen=True)
class Standing:
    """A measure of all runs, with 95 % intervals; the place of the best, and of all that no test
    tells from it."""

    measure: Measure
    values: Sequence[Interval]
    best: int
    tied: frozenset[int]


@dataclass(frozen=True)
class Comparison:
    """Measures and differences are empty where no compared query has a target."""

    answers: Sequence[Answers]
    standings: Sequence[Standing]
    pairs: Sequence[PairOfRuns]
    asked: Asked

    @property
    def tests(self) -> int:
        """That Holm's correction allows for."""
        return sum(len(pair.differences) for pair in self.pairs)

    @property
    def labelled(self) -> int:
        """Queries behind every measure."""
        return len(self.answers[0].queries)


def compared(
    answers: Sequence[Answers], category: Mapping[str, str], asked: Asked | None = None
) -> Comparison:
    """Of two or more runs to the same queries; ``category`` has those of all compared ones."""
    asked = asked or Asked()
    measures = list(answers[0].values)
    places = list(combinations(range(len(answers)), 2))
    differences = _differences(answers, measures, places, asked) if measures else []
    overlaps = _overlaps(answers, category, places, asked.persistence)
    pairs = [
        PairOfRuns(
            first,
            second,
            [one for of, one in differences if of == (first, second)],
            outcome_of(answers[second].ranks - answers[first].ranks),
            overlap,
        )
        for (first, second), overlap in zip(places, overlaps, strict=True)
    ]
    standings = [_standing(answers, one, pairs) for one in measures]
    return Comparison(answers, standings, pairs, asked)


def _differences(
    answers: Sequence[Answers],
    measures: Sequence[Measure],
    places: Sequence[tuple[int, int]],
    asked: Asked,
) -> list[tuple[tuple[int, int], Difference]]:
    """Of each measure and pair, p-values corrected for all of them."""
    category = answers[0].category
    tests = [(measure, pair) for measure in measures for pair in places]
    gained = [answers[i].values[one] - answers[j].values[one] for one, (i, j) in tests]
    tested = sign_flip_tests([macro_terms(category, one) for one in gained], rounds=asked.rounds)
    adjusted = holm([one.p for one in tested])
    column = {(one, i): m * len(answers) + i for m, one in enumerate(measures)
              for i in range(len(answers))}  # fmt: skip
    values = np.stack([each.values[one] for one in measures for each in answers], axis=1)
    columns = [(column[one, i], column[one, j]) for one, (i, j) in tests]
    intervals = difference_intervals(category, values, columns)
    return [
        (
            pair,
            Difference(
                measure,
                intervals[place],
                tested[place].p,
                adjusted[place],
                tested[place].rounds,
                outcome_of(gained[place]),
                standardised_difference(category, gained[place]),
            ),
        )
        for place, (measure, pair) in enumerate(tests)
    ]


def _standing(
    answers: Sequence[Answers], measure: Measure, pairs: Sequence[PairOfRuns]
) -> Standing:
    values = [
        mean_interval([*grouped(each.category, each.values[measure]).values()]) for each in answers
    ]
    differs = {
        (pair.first, pair.second): one.is_sure
        for pair in pairs
        for one in pair.differences
        if one.measure == measure
    }
    return Standing(measure, values, *tied_with_best([one.value for one in values], differs))


def _overlaps(
    answers: Sequence[Answers],
    category: Mapping[str, str],
    places: Sequence[tuple[int, int]],
    persistence: float,
) -> list[Overlap | None]:
    queries = sorted(frozenset.union(*(each.candidates for each in answers)))
    images = pa.concat_arrays(
        [each.order["image_id"].combine_chunks().unique() for each in answers]
    ).unique()
    names = pa.array(queries, pa.string())
    lists = [each.lists(names, images) for each in answers]
    firsts = []
    for each in lists:
        first = np.full(len(queries), -1)
        at_top = each.rank == 1
        first[each.query[at_top]] = each.item[at_top]
        firsts.append(first)
    found: list[Overlap | None] = []
    for i, j in places:
        rbo = rank_biased_overlap(lists[i], lists[j], len(queries), p=persistence)
        both = ~np.isnan(rbo)
        if not both.any():
            found.append(None)
            continue
        of = [category[query] for query, is_in in zip(queries, both, strict=True) if is_in]
        same = (firsts[i] == firsts[j]).astype(float)
        found.append(Overlap(_macro(of, rbo[both]), _macro(of, same[both]), int(both.sum())))
    return found


def _macro(category: Sequence[str], values: np.ndarray) -> float:
    return float(np.mean([group.mean() for group in grouped(category, values).values()]))
