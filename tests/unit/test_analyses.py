"""Analyses of made-up runs, beside the same numbers counted one by one."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cir_core.metrics.significance import Interval, difference_interval, gain_interval
from storage.answers import OpenCatalog, reading
from tasks.results.analyses.analysis import Analysis, Figure, Numbers
from tasks.results.analyses.halves import halves
from tasks.results.analyses.score_distributions import BINS
from tasks.results.analyses.separation import separation
from tasks.results.analyses.signatures import signatures
from tasks.results.analyses.signs import found
from tasks.results.analyses.slices import slices
from tasks.results.analyses.z_t import PROBES, z_t
from tasks.results.wording import late_fusion, percent
from tests.support.random_catalog import Made, random_run, write_made

TWO = random_run(1)
MANY = random_run(2, queries=40, levels=200)

MINE = separation, z_t, halves, slices, signatures

WORDED = {
    "is red": (2, False, 1),
    "has no sleeves and is longer": (6, True, 2),
    "It isn't red, but blue": (5, True, 2),
    "without a logo; with 1.5 cm heels.": (7, True, 2),
    "a notable knot, android": (4, False, 2),
    "is solid & plain + Not white\nand, and\tshort": (10, True, 4),
    "": (0, False, 0),
    "\u202eno": (1, True, 1),
}
"""Words, whether there is a negation, and changes, of texts."""


def knowing() -> dict[str, Made]:
    """A stage 2 that knows the answer, one that turns it round, one that repeats stage 1."""
    made = random_run(5, queries=30, k=20)
    right = np.zeros(made.stage1.shape, dtype=np.float32)
    for query, targets in enumerate(made.targets):
        right[query, targets] = 1
    return {
        name: replace(made, stage2=scores)
        for name, scores in (("good", right), ("bad", -right), ("same", made.stage1))
    }


def answered_without_negation() -> Made:
    """Every third query has no negation, and its target 0 is first; of the others 1 is."""
    stage2 = np.zeros((90, 6), dtype=np.float32)
    stage2[::3, 0], stage2[1::3, 1], stage2[2::3, 1] = 1, 1, 1
    return random_run(7, queries=90, images=6, k=6, stage2=stage2, targets=[[0]] * 90)


def with_hub() -> Made:
    """Image 3 is the first answer to every query, and the target of one."""
    stage2 = np.random.default_rng(9).random((20, 60)).astype(np.float32)
    stage2[:, 3] = 2
    targets = [[3], *([one] for one in range(20, 39))]
    return random_run(9, queries=20, images=60, k=60, stage2=stage2, targets=targets)


def with_targets_at(place: int) -> Made:
    """Of stage 1's order."""
    made = random_run(10, k=3)
    return replace(
        made, targets=[[made.order(query)[place].item()] for query in range(made.queries)]
    )


def with_nothing_failed() -> Made:
    made = random_run(11, k=20)
    return replace(made, targets=[[made.final(query)[0].item()] for query in range(made.queries)])


def probed() -> dict[str, Made]:
    """Random ranks, of which those by the text are unknown in one run; and another stage 2."""
    rng = np.random.default_rng(12)
    columns = ("composed_rank", "image_rank", "text_rank", *PROBES.values())
    ranks = {name: rng.integers(1, 21, 40).tolist() for name in columns}
    assert MANY.stage2 is not None
    other = rng.permuted(MANY.stage2, axis=1)
    return {
        "probed": replace(MANY, probes=ranks),
        "no text": replace(MANY, probes=ranks | {"text_rank": [None] * 40}),
        "no z_t": replace(MANY, probes=ranks | {"reference_rank_z_t": [None] * 40}, k=9),
        "raw tokens": replace(MANY, stage2=other, reads_z_t=False),
        "other index": replace(MANY, stage2=other, reads_z_t=False, vector_index="ivf"),
    }


def sampled() -> Made:
    """All that was dropped."""
    pairs = [
        (query, image)
        for query in range(MANY.queries)
        for image in sorted({*range(MANY.images)} - {*MANY.kept(query).tolist()})
    ]
    return replace(MANY, dropped=pairs)


KINDS = {
    "two stages": TWO,
    "stage 1 alone": random_run(13, stage2=None),
    "no labels": random_run(14, targets=[None] * 12),
    "a single query with a single candidate": random_run(17, queries=1, k=1),
    "all scores equal": random_run(19, levels=1),
    "no target kept": random_run(20, k=1, levels=1, targets=[[19]] * 12),
}
RUNS = {
    **KINDS,
    **probed(),
    "many": MANY,
    "sampled": sampled(),
    **knowing(),
    "worded": random_run(3, queries=len(WORDED), texts=[*WORDED]),
    "copies": random_run(
        *(4,), queries=5, images=4, k=4, copies=2, texts=["is red"],
        targets=[[0], [0, 1], None, [3], [2]],
    ),
    "negation": answered_without_negation(),
    "hub": with_hub(),
    "near": with_targets_at(4),
    "far": with_targets_at(19),
    "nothing failed": with_nothing_failed(),
}  # fmt: skip


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenCatalog]:
    path = tmp_path_factory.mktemp("catalog") / "cir.duckdb"
    with reading(write_made(path, **RUNS)) as opened:
        yield opened


def run_of(catalog: OpenCatalog, name: str) -> dict[str, Any]:
    (run,) = catalog.rows(f"SELECT * FROM runs WHERE run_id = '{name}'")
    return run


def rows_of(analysis: Analysis, title: str) -> list[dict[str, Any]]:
    (found,) = [numbers for numbers in analysis.numbers if numbers.title.startswith(title)]
    return [dict(row) for row in found.rows]


def is_target(made: Made, query: int, image: int) -> bool:
    return image in (made.targets[query] or ())


def beaten(scores: np.ndarray, targets: list[int], negatives: list[int]) -> float:
    pairs = [(scores[one], scores[other]) for one in targets for other in negatives]
    return float(np.mean([0.5 * (one == other) + (one > other) for one, other in pairs]))


# --- separation


def test_shares_beaten_are_those_of_all_pairs(catalog: OpenCatalog) -> None:
    expected = []
    for query in range(TWO.queries):
        kept = TWO.kept(query).tolist()
        targets = [one for one in kept if is_target(TWO, query, one)]
        others = [one for one in kept if not is_target(TWO, query, one)]
        if targets:
            assert TWO.stage2 is not None
            both = TWO.stage1[query], TWO.stage2[query]
            expected.append([beaten(scores, targets, others) for scores in both])
    (row,) = rows_of(separation(catalog, run_of(catalog, "two stages")), "How often")
    means = np.mean(expected, axis=0)
    assert row["n"] == len(expected) < TWO.queries
    assert (row["stage1"], row["stage2"]) == pytest.approx(tuple(means), abs=1e-12)
    low, high = row["interval"]
    assert low < row["gain"] < high


def test_what_dropped_images_put_at_risk(catalog: OpenCatalog) -> None:
    """Of queries whose target is a candidate; those that are first are at risk by each dropped
    image as often as by one of the sample. A target that was dropped is no negative."""
    made, shares, risks = RUNS["sampled"], [], []
    assert made.stage2 is not None
    for query in range(made.queries):
        targets = [one for one in made.kept(query).tolist() if is_target(made, query, one)]
        others = [one for asked, one in made.dropped if asked == query]
        others = [one for one in others if not is_target(made, query, one)]
        if targets:
            shares.append(beaten(made.stage2[query], targets, others))
            is_right = is_target(made, query, made.final(query)[0])
            risks.append((1 - shares[-1]) * is_right * (made.images - made.k))
    told = separation(catalog, run_of(catalog, "sampled"))
    _, row = rows_of(told, "How often")
    assert (row["negatives"], row["n"]) == ("dropped images", len(shares))
    assert row["stage2"] == pytest.approx(np.mean(shares))
    assert row["gain"] is None
    assert f"at most {percent(min(1.0, float(np.mean(risks))))} of these queries" in told.answer
    assert "Easy negatives may fool stage 2" in told.advice


def test_correlations_are_scipys(catalog: OpenCatalog) -> None:
    assert TWO.stage2 is not None
    kept = [TWO.kept(query) for query in range(TWO.queries)]
    first = np.concatenate([TWO.stage1[query, mine] for query, mine in enumerate(kept)])
    second = np.concatenate([TWO.stage2[query, mine] for query, mine in enumerate(kept)])
    orders = [
        [TWO.final(query).tolist().index(image) for image in mine]
        for query, mine in enumerate(kept)
    ]
    of_orders = [stats.spearmanr(np.arange(TWO.k), order).statistic for order in orders]
    told = separation(catalog, run_of(catalog, "two stages"))
    over_all, within = rows_of(told, "Correlation")
    assert over_all["n"] == TWO.queries * TWO.k
    assert over_all["pearson"] == pytest.approx(stats.pearsonr(first, second).statistic)
    assert over_all["spearman"] == pytest.approx(stats.spearmanr(first, second).statistic)
    assert within["spearman"] == pytest.approx(np.mean(of_orders))


def test_equal_scores_are_no_agreement(catalog: OpenCatalog) -> None:
    """Their orders are both the gallery's: that would be a correlation of one."""
    run = run_of(catalog, "all scores equal")
    (row,) = catalog.rows(
        "SELECT count(*) AS n, count(pearson) AS pearson, count(spearman) AS spearman\n"
        "FROM stage_agreement WHERE run_id = 'all scores equal'"
    )
    assert row["n"] > 0 == row["pearson"] == row["spearman"]
    assert "repeats stage 1's order" not in separation(catalog, run).advice


def test_overlap_is_that_of_the_histograms(catalog: OpenCatalog) -> None:
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for query in range(MANY.queries):
        for image in MANY.kept(query).tolist():
            score = float(MANY.stage1[query, image])
            kinds[is_target(MANY, query, image)].append(score)
    span = (min(map(min, kinds.values())), max(map(max, kinds.values())))
    shares = [np.histogram(scores, BINS, span)[0] / len(scores) for scores in kinds.values()]
    found = rows_of(separation(catalog, run_of(catalog, "many")), "Overlap")
    assert found[0]["overlap"] == pytest.approx(np.minimum(*shares).sum(), abs=0.03)


def test_what_is_advised_follows_from_the_numbers(catalog: OpenCatalog) -> None:
    names = ("good", "bad", "same")
    told = {name: separation(catalog, run_of(catalog, name)).advice for name in names}
    assert "better than stage 1" in told["good"]
    assert "worse than stage 1" in told["bad"]
    assert "does not show" in told["same"]
    assert "repeats stage 1's order" in told["same"]


# --- halves, and z_t


def shares(made: Made, name: str, k: int) -> np.ndarray:
    return np.array(made.probes[name]) <= k


def test_shares_that_halves_solve(catalog: OpenCatalog) -> None:
    made = RUNS["probed"]
    composed, image, text = (
        shares(made, f"{name}_rank", 10) for name in ("composed", "image", "text")
    )
    told = halves(catalog, run_of(catalog, "probed"))
    row = rows_of(told, "R@k of stage 1")[-1]
    assert (row["k"], row["n"]) == (10, 40)
    assert (row["composed"], row["image"]) == pytest.approx((composed.mean(), image.mean()))
    assert row["either"] == pytest.approx((image | text).mean())
    assert row["only_both"] == pytest.approx((composed & ~image & ~text).mean())
    better = max(image, text, key=np.mean)
    low, high = row["interval"]
    assert row["gap"] == pytest.approx(composed.mean() - better.mean())
    assert (row["gap"], low, high) == pytest.approx(gain_interval([composed * 1.0 - better]))
    assert "does no better than" in told.advice or low > 0


def test_a_stage_1_without_texts_alone_has_one_half(catalog: OpenCatalog) -> None:
    told = halves(catalog, run_of(catalog, "no text"))
    row = rows_of(told, "R@k of stage 1")[-1]
    assert row["text"] is None
    assert row["gap"] == pytest.approx(row["composed"] - row["image"])
    assert "cannot be asked by text alone" in told.answer
    assert "text alone" not in [bar["x"] for bar in told.figures[0].rows]


def test_references_that_are_found_again(catalog: OpenCatalog) -> None:
    made = RUNS["probed"]
    told = z_t(catalog, run_of(catalog, "probed"))
    found = {row["probe"]: row for row in rows_of(told, "How often a query's own reference")}
    for name, column in PROBES.items():
        assert found[name]["first"] == pytest.approx(shares(made, column, 1).mean())
        assert found[name]["first_10"] == pytest.approx(shares(made, column, 10).mean())
        assert found[name]["chance"] == pytest.approx(1 / made.images)
    assert "keeps little" in told.answer
    assert "has lost much" in told.advice
    assert "was not probed" in z_t(catalog, run_of(catalog, "no z_t")).answer


def test_a_stage_2_without_z_t_is_compared_query_by_query(catalog: OpenCatalog) -> None:
    """Runs of another K, or another index, are no part of it."""
    runs = {name: RUNS[name] for name in ("probed", "raw tokens")}
    hits = {
        name: np.array([is_target(one, query, one.final(query)[0]) for query in range(40)])
        for name, one in runs.items()
    }
    told = z_t(catalog, run_of(catalog, "probed"))
    found = {row["run"]: row for row in rows_of(told, "Stage 2 by what it reads")}
    assert found.keys() >= {"probed", "raw tokens"}
    assert not {"no z_t", "other index"} & found.keys()
    row = found["raw tokens"]
    assert row["reads"] == "texts and images"
    assert row["recall"] == pytest.approx(hits["raw tokens"].mean())
    difference = hits["raw tokens"] * 1.0 - hits["probed"]
    assert (row["gain"], *row["interval"]) == pytest.approx(gain_interval([difference]))


# --- slices


def test_traits_of_texts(catalog: OpenCatalog) -> None:
    found = catalog.rows(
        "SELECT text, words, has_negation, changes FROM query_traits "
        "JOIN queries USING (run_id, query_id) WHERE run_id = 'worded'"
    )
    assert {row.pop("text"): tuple(row.values()) for row in found} == WORDED


def test_traits_of_targets(catalog: OpenCatalog) -> None:
    """Images 0 and 1 are copies, 2 and 3; queries 0 and 4 ask the same of image 0."""
    found = catalog.rows(
        "SELECT targets, is_ambiguous, target_has_copy FROM query_traits "
        "WHERE run_id = 'copies' ORDER BY query_id"
    )
    assert [tuple(row.values()) for row in found] == [
        (1, True, True),
        (2, False, False),
        (None, None, None),
        (1, False, True),
        (1, True, True),
    ]


def test_slices_count_their_queries_alone(catalog: OpenCatalog) -> None:
    negated = [query for query in range(MANY.queries) if query % 3]
    hits = [is_target(MANY, query, MANY.final(query)[0]) for query in negated]
    told = slices(catalog, run_of(catalog, "many"))
    found = {row["slice"]: row for row in rows_of(told, "R@1 ")}
    assert found["negation"]["n"] == len(negated)
    assert found["negation"]["last"] == pytest.approx(np.mean(hits))
    assert found["negation"]["n"] + found["no negation"]["n"] == found["all queries"]["n"] == 40
    assert found["negation"]["is_small"]


def test_a_kind_of_queries_that_fails_is_named(catalog: OpenCatalog) -> None:
    told = slices(catalog, run_of(catalog, "negation"))
    assert "negation (n = 60): 0.0 %, -100.0 points" in told.answer
    assert "Negated words cost recall" in told.advice


def test_a_difference_of_means_is_newcombes() -> None:
    """His example (a) of Table II: 56/70 and 48/80, method 10."""
    one, other = Interval(0.8, 0.6918, 0.8769), Interval(0.6, 0.4905, 0.7003)
    found = difference_interval(one, other)
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4)


# --- signatures


def signs_of(catalog: OpenCatalog, name: str) -> dict[str, dict[str, Any]]:
    told = signatures(catalog, run_of(catalog, name))
    return {row["signature"]: row for row in rows_of(told, "Signatures")}


def test_signs_are_counted_one_by_one(catalog: OpenCatalog) -> None:
    lost = misplaced = unseated = reference = 0
    for query in range(MANY.queries):
        targets, final = set(MANY.targets[query] or ()), MANY.final(query).tolist()
        is_candidate = bool(targets & set(final))
        lost += not is_candidate
        misplaced += is_candidate and final[0] not in targets
        unseated += MANY.kept(query)[0] in targets and final[0] not in targets
        reference += final[0] == query % MANY.images and final[0] not in targets
    found = signs_of(catalog, "many")
    assert found["low coverage"]["queries"] == lost > 0
    assert found["poor order"]["queries"] == misplaced > 0
    assert found["stages disagree"]["queries"] == unseated > 0
    assert found["reference first"]["queries"] == reference > 0
    counts = [row["queries"] for row in found.values()]
    assert counts == sorted(counts, reverse=True)


def test_a_hub_and_the_queries_that_it_hurts(catalog: OpenCatalog) -> None:
    """One of them has it as its reference: that is another sign."""
    assert signs_of(catalog, "hub")["hubs"]["queries"] == 18
    every = catalog.rows("SELECT * FROM occurrences WHERE run_id = 'hub'")
    (hub,) = [row for row in every if row["image_id"] == "i3"]
    assert (hub["first"], hub["wrong_first"], hub["first_10"], hub["is_hub"]) == (20, 19, 20, True)
    counts = np.array([row["first_10"] for row in every])
    assert [row["is_hub"] for row in every] == (counts > counts.mean() + 2 * counts.std()).tolist()


def test_what_helps_against_low_coverage_depends_on_where_targets_are(
    catalog: OpenCatalog,
) -> None:
    """Just beyond the candidates, or at the end of the gallery."""
    near, far = (signs_of(catalog, name)["low coverage"]["advice"] for name in ("near", "far"))
    assert "too strict: `-k 6` keeps 12" in near
    assert "Stage 1 is at fault" in far


@pytest.mark.parametrize(
    ("won", "lost", "agreement", "told"),
    [
        (2, 20, 0.5, "may be no pair"),
        (20, 2, 0.5, "Re-ranking pays"),
        (20, 2, 0.05, "The orders hardly agree"),
        (0, 1, 0.5, "do not show"),
    ],
)
def test_a_pair_is_suspected_where_that_is_no_chance(
    catalog: OpenCatalog, won: int, lost: int, agreement: float, told: str
) -> None:
    counts = defaultdict(
        int, {"labelled": 100, "unseated": lost, "found": won, "agreement": agreement}
    )
    signs = found(run_of(catalog, "good"), counts)
    (sign,) = [one for one in signs if one.name == "stages disagree"]
    assert told in sign.row["advice"]
    assert sign.queries == lost


def test_nothing_failed(catalog: OpenCatalog) -> None:
    told = signatures(catalog, run_of(catalog, "nothing failed"))
    assert told.answer.startswith("None fails")


# --- every analysis


@pytest.mark.parametrize("name", KINDS)
def test_every_run_is_answered_or_told_what_lacks(catalog: OpenCatalog, name: str) -> None:
    run = run_of(catalog, name)
    for analyse in MINE:
        found = analyse(catalog, run)
        assert bool(found.answer) != bool(found.missing), found
        assert "nan" not in f"{found.answer} {found.advice}".lower()
        assert ("by stage 2" in found.answer) <= ("stage 1 alone" not in name)
        for numbers in found.numbers:
            fields = {column.field for column in numbers.columns}
            assert all(row.keys() >= fields for row in numbers.rows)
        for figure in found.figures:
            assert figure.rows
            assert figure.described
            assert all(row.keys() >= {"x", "y"} for row in figure.rows)


def test_sql_gives_the_numbers_anew(catalog: OpenCatalog) -> None:
    """All but intervals, and words."""
    run = run_of(catalog, "many")
    for analyse in MINE:
        found = analyse(catalog, run)
        every: list[Numbers | Figure] = [*found.numbers, *found.figures]
        for told in every:
            again = [row for row in catalog.rows(told.sql) if "labelled" not in row]
            for mine, theirs in zip(told.rows, again or told.rows, strict=True):
                shared = {one for one in mine.keys() & theirs.keys() if one != "negatives"}
                assert shared
                assert {one: mine[one] for one in shared} == pytest.approx(
                    {one: theirs[one] for one in shared}
                )


@pytest.mark.parametrize(
    ("protocol", "first_stage", "fits"),
    [
        ("demo-original-kept", "stage1", True),
        ("fiq-original-kept", "embeddings", False),
        ("fiq-original-kept", "candidates", False),
        ("circo-kept-concept", "stage1", False),
        ("own-kept", "stage1", False),
    ],
)
def test_a_fit_is_advised_where_it_is_not_refused(
    protocol: str, first_stage: str, fits: bool
) -> None:
    run = {"protocol": protocol, "first_stage": first_stage}
    assert ("`--late-fusion fit`" in late_fusion(run)) == fits
