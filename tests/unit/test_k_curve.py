"""Every K from one pass, against really re-ranking each K; and which K to take."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from cir_core.metrics.k_choice import KCurve, affordable, best, enough, reaching
from cir_core.types import Benchmark, ImageId, Query, QueryId
from flows.doors.cli.app import app
from storage.answers import reading
from storage.catalog import query
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.results.analyses.analysis import Analysis, Figure, Numbers
from tasks.results.analyses.k_curve import k_curve
from tests.support.made_runs import (
    circo_benchmark,
    cirr_benchmark,
    published,
    random_scores,
    write_run,
)

IMAGES = 12
TRIED = (1, 2, 3, 5, 6, 8, 12)
DEEPEST = TRIED[-1]

Told = dict[tuple[str, int, int], tuple[float, float, int]]
CATEGORIES = {"coat": 9, "hat": 4}
"""And their queries; together with a category that nobody labelled."""


def shop_benchmark() -> Benchmark:
    """Queries with no target, one, several, or one that is no member; galleries are of two sizes,
    the smaller one below the largest K."""
    galleries = {
        name: tuple(ImageId(f"{name}{row}") for row in range(size))
        for name, size in {"coat": IMAGES, "hat": 6, "shoe": 3}.items()
    }
    queries = [
        Query(
            query_id=QueryId(f"{name}'s {number}"),
            category=name,
            reference_id=galleries[name][number % 3],
            text="red",
            targets=tuple(galleries[name][row] for row in range(3, 3 + number % 4)),
        )
        for name, count in CATEGORIES.items()
        for number in range(count)
    ]
    lost = Query(QueryId("lost"), "coat", galleries["coat"][0], "blue", (galleries["coat"][1],))
    strange = Query(QueryId("strange"), "coat", galleries["coat"][0], "new", (ImageId("hat1"),))
    silent = Query(QueryId("silent"), "shoe", galleries["shoe"][0], "old")
    return Benchmark(galleries, (*queries, lost, strange, silent), {})


BENCHMARKS = {
    "own-removed": shop_benchmark(),
    "own-kept": shop_benchmark(),
    "circo-kept-caption": circo_benchmark(IMAGES, 7, targets=4),
    "cirr-removed-subset-scored": cirr_benchmark(IMAGES, 7),
}


def write(store: Path, protocol: str, *, k: int, levels: int) -> Evaluated:
    rng, benchmark = np.random.default_rng(levels), BENCHMARKS[protocol]
    stage1, stage2 = (random_scores(benchmark, rng, levels) for _ in range(2))
    stage1 = {name: scores for name, scores in stage1.items() if name != "lost"}
    given: dict[str, Any] = {"protocol": protocol, "stage1": stage1, "stage2": stage2}
    return Evaluated(LocalStore(store), write_run(store, benchmark, k=k, **given))


def counted(evaluated: Evaluated, k: int) -> Told:
    """Recall, its ceiling and the labelled queries, by category, K and k, as evaluated."""
    rows = evaluated.read("metrics").to_pylist()
    ceilings = {row["category"]: row["value"] for row in rows if row["metric"] == "coverage"}
    return {
        (row["category"], k, row["k"]): (row["value"], ceilings[row["category"]], row["n"])
        for row in rows
        if (row["metric"], row["stage"]) == ("recall", "stage2")
    }


@pytest.mark.parametrize(
    ("protocol", "levels"), [*((name, 3) for name in BENCHMARKS), ("own-removed", 1000)]
)
def test_each_k_is_what_re_ranking_so_many_gives(
    tmp_path: Path, protocol: str, levels: int
) -> None:
    expected: Told = {}
    pairs = {}
    for k in TRIED:
        run = write(tmp_path / str(k), protocol, k=k, levels=levels)
        expected |= counted(run, k)
        pools = run.candidates.read("candidates", ["pool"])["pool"]
        pairs[k] = pc.sum(pc.equal(pools, "gallery")).as_py()
    sql = "SELECT category, k_candidates, k, recall, coverage, n, pairs FROM k_curve"
    _, rows = query(published(tmp_path / str(DEEPEST), run.fingerprint), sql)
    found = {tuple(row[:3]): tuple(row[3:6]) for row in rows}
    assert len(found) == len(rows)
    assert found.keys() >= expected.keys()
    assert {k for _, k, _ in found} == set(range(1, DEEPEST + 1))
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, abs=1e-12), key
    whole = "micro" if ("micro", 1, 1) in found else next(iter(found))[0]
    silent = {k: min(k, 2 + protocol.endswith("kept")) * protocol.startswith("own") for k in pairs}
    reached = {row[1]: row[6] for row in rows if row[0] == whole}
    assert {k: reached[k] + silent[k] for k in pairs} == pairs


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    run = write(store, "cirr-removed-subset-scored", k=5, levels=3)
    return published(store, run.fingerprint)


@pytest.mark.parametrize(
    "change", ["stage2_sha256 = NULL", "late_fusion_scores = 'standardised', late_fusion = 1"]
)
def test_recall_is_not_told_where_no_order_is_known_for_fewer(
    catalog: Path, tmp_path: Path, change: str
) -> None:
    copy = tmp_path / "cir.duckdb"
    shutil.copy(catalog, copy)
    sql = "SELECT count(*), count(recall), count(coverage), count(pairs) FROM k_curve"
    assert query(copy, sql)[1] == [(20, 20, 20, 20)]
    with duckdb.connect(str(copy)) as connection:
        connection.execute(f"UPDATE runs SET {change}")
    assert query(copy, sql)[1] == [(20, 0, 20, 20)]


def test_many_ks_are_told_by_two_digits_and_the_runs_own(catalog: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cir.duckdb"
    shutil.copy(catalog, copy)
    with duckdb.connect(str(copy)) as connection:
        connection.execute("UPDATE runs SET k = 1234")
    _, rows = query(copy, "SELECT DISTINCT k_candidates FROM k_curve ORDER BY ALL")
    ks = [*range(1, 100), *range(100, 1000, 10), *range(1000, 1234, 100), 1234]
    assert [k for (k,) in rows] == ks


# --- which K


def curve(coverage: list[list[float]], recall: Mapping[int, list[list[float]]]) -> KCurve:
    """Of two categories of 10 queries."""
    ks = np.arange(1, len(coverage) + 1)
    recalls = {k: np.array(values) for k, values in recall.items()}
    return KCurve(["a", "b"], ks, 20 * ks, np.array(coverage), recalls, np.array([10, 10]))


CEILING = [[0.2, 0.4], [0.5, 0.7], [0.9, 0.9]]


def test_what_a_ceiling_takes_and_what_a_budget_buys() -> None:
    found = curve(CEILING, {})
    assert [reaching(found, share) for share in (0.1, 0.3, 0.6, 0.9, 0.91)] == [0, 0, 1, 2, None]
    assert [affordable(found, pairs) for pairs in (19, 20, 59, 60, 900)] == [None, 0, 1, 2, 2]
    assert enough(found) is None


def test_the_best_of_several_is_the_smallest_however_its_mean_is_rounded() -> None:
    equal = [[0.1, 0.7], [0.7, 0.1], [0.0, 0.8]]
    assert best(curve(CEILING, {1: equal}), 1) == 0


def test_what_is_enough_is_so_for_every_k() -> None:
    first = [[0.1, 0.1], [0.7, 0.7], [0.8, 0.8]]  # Wilson's interval of 16 in 20 begins at 0.58
    tenth = [[0.2, 0.2], [0.5, 0.5], [1.0, 1.0]]
    assert enough(curve(CEILING, {1: first})) == 1
    assert enough(curve(CEILING, {1: first, 10: tenth})) == 2


def analysed(path: Path) -> Analysis:
    with reading(path) as opened:
        (run,) = opened.rows("SELECT * FROM runs")
        found = k_curve(opened, run)
        every: list[Numbers | Figure] = [*found.numbers, *found.figures]
        for shown in every:
            anew = opened.rows(shown.sql)
            assert [{**row, **told} for row, told in zip(anew, shown.rows, strict=True)] == anew
    return found


def test_the_analysis_tells_the_chosen_k(catalog: Path) -> None:
    found = analysed(catalog)
    chosen = {row["choice"]: row for row in found.numbers[0].rows}
    assert [*chosen][-1] == "this run"
    assert chosen["this run"]["k_candidates"] == 5
    sql = "SELECT k, value FROM metrics WHERE metric = 'recall' AND stage = 'stage2'"
    _, evaluated = query(catalog, sql)
    assert {k: chosen["this run"][f"recall_{k}"] for k, _ in evaluated} == dict(evaluated)
    assert "subset's recall does not depend on K" in found.answer
    assert "`cir-pipeline plan -k K`" in found.advice
    assert {row["series"] for row in found.figures[0].rows} >= {"R@1", "R@50", "ceiling"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE runs SET stage2_sha256 = NULL", "Nothing was re-ranked"),
        ("UPDATE runs SET late_fusion_scores = 'standardised'", "order itself depends on K"),
        ("UPDATE runs SET late_fusion_scores = 'standardised'", "`--late-fusion-scores raw`"),
        ("UPDATE queries SET targets = NULL, recall_targets = NULL", "no labels"),
    ],
)
def test_the_analysis_says_what_is_not_there(
    catalog: Path, tmp_path: Path, change: str, told: str
) -> None:
    copy = tmp_path / "cir.duckdb"
    shutil.copy(catalog, copy)
    with duckdb.connect(str(copy)) as connection:
        connection.execute(change)
    found = analysed(copy)
    assert told in f"{found.answer}{found.advice}{found.missing}"


def test_an_adaptive_run_is_not_told_to_take_a_fixed_k(catalog: Path, tmp_path: Path) -> None:
    """A K of its curve is the most of a query's own candidates: fixed, it would score more."""
    copy = tmp_path / "cir.duckdb"
    shutil.copy(catalog, copy)
    with duckdb.connect(str(copy)) as connection:
        connection.execute("UPDATE runs SET coverage_asked = 0.9")
    found = analysed(copy)
    assert found.answer.startswith("K is adaptive")
    assert "`--coverage`" in found.advice
    assert "-k" not in found.advice


def test_the_command_tells_a_budget_and_a_ceiling(catalog: Path) -> None:
    words = ["choose-k", "--store", str(catalog.parent), "--budget", "15", "--coverage", "0.3"]
    words += ["--coverage", "1"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "A budget of 15 pairs buys K = 2." in told.stdout
    assert "ceiling of 30 %" in told.stdout
    assert "No K up to 5 has 100 % of the targets among the candidates" in told.stdout
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    choices = [row["choice"] for row in found["numbers"][0]["rows"]]
    assert {"ceiling of 30 %", "within 15 pairs", "this run"} <= {*choices}


def test_the_command_makes_a_catalog_anew_that_lacks_the_run(tmp_path: Path, catalog: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(catalog.parent, store)
    (store / catalog.name).unlink()
    told = CliRunner().invoke(app, ["choose-k", "--store", str(store)], catch_exceptions=False)
    assert told.exit_code == 0
    assert (store / catalog.name).is_file()
