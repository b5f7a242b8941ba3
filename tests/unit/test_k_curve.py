"""Every K from one pass, against really re-ranking each K."""

import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute as pc
import pytest

from cir_core.types import Benchmark, ImageId, Query, QueryId
from storage.catalog import query
from storage.store import LocalStore
from storage.views import Evaluated
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


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("protocol", BENCHMARKS)
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
