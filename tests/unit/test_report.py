"""The report's page: what is inlined and what its policy allows, and what it says of a run."""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from html import unescape
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from cir_core.errors import UsageError
from cir_core.metrics.significance import Interval
from cir_core.types import Benchmark, QueryId
from flows.published import require_root
from flows.remake import remake_report
from storage.answers import reading
from storage.catalog import CATALOG_FILE
from storage.runs import find_run, finished
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.results.analyses.analysis import Figure
from tasks.results.analyses.failure_split import failure_split
from tasks.results.analyses.k_curve import k_curve
from tasks.results.analyses.signatures import signatures
from tasks.results.report.charts import chart_data, figure_numbers
from tasks.results.report.cost import duration, words_of
from tasks.results.report.forms import NONE, told
from tasks.results.report.page import ROOM, Page, with_code
from tasks.results.report.searched import problems
from tasks.results.report.source import Source
from tasks.results.report.verdict import Verdict, verdict
from tasks.results.story import story
from tasks.results.wording import points, with_interval
from tasks.stages.output import make_output
from tasks.stages.publish import Publish
from tests.support.made_runs import circo_benchmark, cirr_benchmark, random_scores, write_run

HOSTILE = "</script><script>alert(1)</script><!-- \u202e\"' & \n\x07"


def test_data_for_scripts_holds_any_text_and_ends_no_element() -> None:
    element = str(Page().data("known", {"text": HOSTILE}))
    content = element.removeprefix('<script type="application/json" id="known">')
    content = content.removesuffix("</script>")
    assert "<" not in content
    assert json.loads(content) == {"text": HOSTILE}
    with pytest.raises(ValueError, match="JSON"):
        Page().data("number", float("nan"))


def test_the_policy_allows_the_scripts_that_stand_in_the_page_and_no_other() -> None:
    page = Page()
    assert "script-src 'none'" in page.policy()
    element = str(page.script("charts.js"))
    content = element.removeprefix("<script>").removesuffix("</script>")
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy()
    assert "unsafe-inline" not in page.policy().partition("script-src")[2]
    assert page.policy().startswith("default-src 'none'")


def test_vendored_scripts_are_the_published_ones() -> None:
    vendor = resources.files(ROOM) / "vendor"
    notice = (vendor / "NOTICE").read_text()
    promised = re.findall(r"^(\S+\.js) .*\n +sha256 (\w{64})$", notice, re.MULTILINE)
    assert {name for name, _ in promised} == {"d3.min.js", "plot.umd.min.js"}
    for name, sha256 in promised:
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == sha256


def test_charts_are_told_by_column_and_leave_out_what_is_no_number() -> None:
    rows = [{"x": 1, "y": 0.5, "series": "a"}, {"x": 2, "y": float("inf"), "series": "b"}]
    figure = Figure("line", "k", "recall", rows, "SELECT 1", "a line", is_percent=True)
    data = chart_data(figure)
    assert data["columns"] == {"x": [1, 2], "y": [0.5, None], "series": ["a", "b"]}
    assert data["percent"]
    numbers = figure_numbers(figure)
    assert [column.heading for column in numbers.columns] == ["k", "recall", "of"]
    assert [column.form for column in numbers.columns] == ["number", "percent", "text"]


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (0.12345, "percent", "12.35"),
        (-0.001, "gain", "-0.10"),
        (-1e-9, "gain", "+0.00"),
        ((-0.1, 0.2), "interval", "[-10.00, +20.00]"),
        (1234, "count", "1,234"),
        (1234567.8, "number", "1,234,568"),
        (0.123456, "number", "0.1235"),
        (None, "percent", NONE),
        ("<b>", "text", "<b>"),
    ],
)
def test_values_are_told(value: Any, form: str, expected: str) -> None:
    assert told(value, form) == expected


def verdict_of(store: Path, benchmark: Benchmark, protocol: str, **scores: Any) -> Verdict:
    fingerprint = write_run(store, benchmark, protocol=protocol, **scores)
    evaluated = Evaluated(LocalStore(store), fingerprint)
    make_output(Publish(evaluated))
    with reading(store / CATALOG_FILE) as catalog:
        (run,) = catalog.rows("SELECT * FROM runs")
        return verdict(Source(evaluated, run, catalog, store))


def scores_of_targets(benchmark: Benchmark, ranks: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Falling with gallery order, with each query's target moved to its rank."""
    scores: dict[str, np.ndarray] = {}
    for query in benchmark.queries:
        gallery = [one for one in benchmark.galleries[query.category] if one not in query.targets]
        order = [one for one in gallery if one != query.reference_id]
        order.insert(ranks[query.query_id] - 1, query.targets[0])
        places = {one: -place for place, one in enumerate(order)}
        scores[query.query_id] = np.array(
            [float(places.get(one, -999)) for one in benchmark.galleries[query.category]]
        )
    return scores


def test_a_loss_that_rounds_to_nothing_is_told_without_a_minus_everywhere() -> None:
    assert with_interval(-1e-9, -0.01, 1e-9) == "+0.00 [-1.00, +0.00]"
    assert points(Interval(-1e-9, -0.01, 1e-9)) == "+0.0 points [-1.0, +0.0]"


def test_the_verdict_says_gain_ceiling_and_where_failures_are(tmp_path: Path) -> None:
    """In tenths of the queries, R@5 is 2 and 5, coverage 7; the subset's target comes first as
    often as its rank in the gallery, which the other members follow, is low enough."""
    benchmark = cirr_benchmark(60, 40)
    ids = [str(query.query_id) for query in benchmark.queries]
    before = dict(zip(ids, 4 * [1, 1, 7, 7, 7, 7, 7, 20, 20, 30], strict=True))
    after = dict(zip(ids, 4 * [1, 1, 1, 1, 1, 9, 9, 1, 1, 1], strict=True))
    made = verdict_of(
        tmp_path,
        benchmark,
        "cirr-removed-subset-scored",
        k=10,
        stage1=scores_of_targets(benchmark, before),
        stage2=scores_of_targets(benchmark, after),
    )
    with reading(tmp_path / CATALOG_FILE) as catalog:
        first, second = catalog.rows(
            "SELECT value FROM metrics WHERE metric = 'cirr_average' ORDER BY stage"
        )
    gain, reach, failures = (text for text, _ in made.sentences)
    assert gain.startswith(
        f"Re-ranking raises the mean of R@5 and R_subset@1: {100 * first['value']:.2f} % before, "
        f"{100 * second['value']:.2f} % after; {100 * (second['value'] - first['value']):+.2f} "
    )
    assert "excludes zero" in gain
    assert "No order of the candidates can reach more than 85.00 %" in reach  # (70 + 100) / 2
    assert (
        "Of 40 queries, 20 (50.0 %) do not have their target among the first 5: 12 lost" in failures
    )
    assert "8 ordered wrong. The larger part is stage 1's." in failures
    assert [tile.value for tile in made.tiles[-2:]] == ["85.00", "50.0"]


def test_no_stage_is_told_off_for_an_equal_share_or_for_what_nobody_could_answer(
    tmp_path: Path,
) -> None:
    """Two targets are lost, two ordered wrong; then, of two queries, one is right and the other was
    never asked."""
    benchmark = cirr_benchmark(60, 4)
    ids = [str(query.query_id) for query in benchmark.queries]
    ranks = dict(zip(ids, [20, 20, 7, 7], strict=True))
    scores = scores_of_targets(benchmark, ranks)
    protocol = "cirr-removed-subset-scored"
    made = verdict_of(tmp_path / "a", benchmark, protocol, k=10, stage1=scores, stage2=scores)
    assert made.sentences[-1][0].endswith("2 lost in stage 1, 2 ordered wrong.")
    benchmark = cirr_benchmark(60, 2)
    one = scores_of_targets(benchmark, {ids[0]: 1, ids[1]: 1})
    asked = {ids[0]: one[ids[0]]}
    made = verdict_of(tmp_path / "b", benchmark, protocol, k=10, stage1=asked, stage2=one)
    assert made.sentences[-1][0].endswith("and 1 that cannot be answered.")
    with reading(tmp_path / "a" / CATALOG_FILE) as catalog:
        (run,) = catalog.rows("SELECT * FROM runs")
        assert "as many targets are lost" in failure_split(catalog, run).advice
    with reading(tmp_path / "b" / CATALOG_FILE) as catalog:
        (run,) = catalog.rows("SELECT * FROM runs")
        told = signatures(catalog, run)
        counts = {row["signature"]: row["queries"] for row in told.numbers[0].rows}
        assert counts["low coverage"] == 0, "the reference was unusable: not stage 1's fault"
        assert told.answer.endswith("target first. 1 cannot be answered: see the problems.")


def test_no_smaller_k_is_advised_where_no_target_is_reached(tmp_path: Path) -> None:
    benchmark = cirr_benchmark(60, 2)
    ranks = {str(query.query_id): 20 for query in benchmark.queries}
    scores = scores_of_targets(benchmark, ranks)
    protocol = "cirr-removed-subset-scored"
    verdict_of(tmp_path, benchmark, protocol, k=10, stage1=scores, stage2=scores)
    with reading(tmp_path / CATALOG_FILE) as catalog:
        (run,) = catalog.rows("SELECT * FROM runs")
        assert k_curve(catalog, run).advice.startswith("No target is among the candidates")


def test_a_maps_ceiling_counts_all_targets(tmp_path: Path) -> None:
    benchmark = circo_benchmark(30, 8)
    rng = np.random.default_rng(0)
    made = verdict_of(
        tmp_path,
        benchmark,
        "circo-kept-caption",
        k=12,
        stage1=random_scores(benchmark, rng, 1000),
        stage2=random_scores(benchmark, rng, 1000),
    )
    with reading(tmp_path / CATALOG_FILE) as catalog:
        (reached,) = catalog.rows(
            "SELECT count(*) / 3 / 8 AS part FROM target_ranks WHERE stage1_rank <= 12"
        )
    assert f"more than {100 * reached['part']:.2f} %" in made.sentences[1][0]
    assert "mAP@5" in made.sentences[0][0]


def test_the_page_has_every_section_and_asks_for_nothing(tmp_path: Path) -> None:
    benchmark = cirr_benchmark(30, 12)
    rng = np.random.default_rng(0)
    stage1, stage2 = (random_scores(benchmark, rng, 1000) for _ in range(2))
    protocol = "cirr-removed-subset-scored"
    write_run(tmp_path, benchmark, protocol=protocol, k=10, stage1=stage1, stage2=stage2)
    run = find_run(LocalStore(tmp_path), None)
    with pytest.raises(UsageError, match="need --data-root"):
        require_root(run, {})
    made = remake_report(run, require_root(run, {"data_root": tmp_path}), pictures=0)
    page = made[0].read_text()
    for section in ("verdict", "recall", "cost", "failure_split", "movement", "queries", "made"):
        assert f'<section id="{section}"' in page
    contents = page.partition("<nav")[2].partition("</nav>")[0]
    for name in re.findall(r'href="#(\w+)"', contents):
        assert f'<section id="{name}"' in page
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = unescape(page.partition('Policy" content="')[2].partition('"')[0])
    digests = [hashlib.sha256(one.encode()).digest() for one in scripts]
    allowed = [f"'sha256-{base64.b64encode(one).decode()}'" for one in digests]
    assert policy.partition("script-src ")[2].split() == list(dict.fromkeys(allowed))
    shown = re.sub(r"<script.*?</script>|<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert "://" not in shown
    assert "Of ingest, encode, fuse, retrieve, rerank not all work is recorded" in shown
    assert "&#34;cirr-removed-subset-scored&#34;" in shown, "the settings of evaluate"


def test_a_problem_is_shown_with_what_can_be_seen_of_it(tmp_path: Path) -> None:
    """The third query was not asked: it is a problem, and its reference has a picture."""
    benchmark = cirr_benchmark(20, 4)
    scores = random_scores(benchmark, np.random.default_rng(0), 100)
    asked = {name: one for name, one in scores.items() if name != benchmark.queries[2].query_id}
    write_run(
        tmp_path, benchmark, protocol="cirr-removed-subset-scored", k=5, stage1=asked, stage2=scores
    )
    (run,) = finished(LocalStore(tmp_path))
    make_output(Publish(run))
    with reading(tmp_path / CATALOG_FILE) as catalog:
        (row,) = catalog.rows("SELECT * FROM runs")
        source = Source(run, row, catalog, tmp_path)
        found, said = problems(source), verdict(source)
    assert [one["item"] for one in found.rows] == [benchmark.queries[2].query_id]
    assert found.rows[0]["shown"] == benchmark.queries[2].reference_id
    assert found.rows[0]["picture"] == "", "no file is there"
    assert found.count == 1
    assert said.sentences[0] == ("1 image or query could not be used.", "bad")
    assert "1 that cannot be answered" in said.sentences[-1][0]


def test_a_problem_of_an_image_is_no_querys_that_is_called_alike(tmp_path: Path) -> None:
    """The first query is called as its target is; the image is unreadable, and another query too
    long. The first has candidates, none of them its target."""
    benchmark = cirr_benchmark(20, 4)
    first = benchmark.queries[0]
    alike = QueryId(first.targets[0])
    queries = (dataclasses.replace(first, query_id=alike), *benchmark.queries[1:])
    benchmark = dataclasses.replace(benchmark, queries=queries)
    scores = random_scores(benchmark, np.random.default_rng(0), 100)
    protocol = "cirr-removed-subset-scored"
    write_run(tmp_path, benchmark, protocol=protocol, k=5, stage1=scores, stage2=scores)
    (run,) = finished(LocalStore(tmp_path))
    make_output(Publish(run))
    with duckdb.connect(str(tmp_path / CATALOG_FILE)) as connection:
        rows = [(alike, "unreadable"), (queries[1].query_id, "text_too_long")]
        for item, kind in rows:
            connection.execute(
                "INSERT INTO problems VALUES (?, ?, ?, 'told')", [run.run_id, item, kind]
            )
    with reading(tmp_path / CATALOG_FILE) as catalog:
        (row,) = catalog.rows("SELECT * FROM runs")
        found = problems(Source(run, row, catalog, tmp_path)).rows
        assert [(one["item"], one["query_id"]) for one in found] == [
            (queries[1].query_id, queries[1].query_id),
            (alike, None),
        ]
        assert [one["shown"] for one in found] == [queries[1].reference_id, alike]
        for query in queries:
            told = story(catalog, run.run_id, query.query_id).problems
            wanted = [query.query_id] * (query == queries[1])
            wanted += [alike] * (query.reference_id == first.targets[0])
            assert [one["item"] for one in told] == wanted


def test_of_a_run_that_had_nothing_to_score_no_speed_is_told() -> None:
    row = {"stage": "rerank", "seconds": 0.5, "memory": 1.0, "machine": "CPU", "recorded": 1.0}
    row |= {"copied": None}
    (told,) = words_of([{**row, "pairs": None, "speed": None}])
    assert told.startswith("What this run is made of took 0.5 s")
    assert words_of([{**row, "pairs": 7, "speed": 14.0}])[1].startswith("Stage 2 scored 7 pairs")


@pytest.mark.parametrize(
    ("seconds", "expected"), [(7.25, "7.2 s"), (200, "3 min 20 s"), (8000, "2 h 13 min")]
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_what_stands_between_grave_accents_is_code() -> None:
    assert with_code("say `a < b` & go") == "say <code>a &lt; b</code> &amp; go"
    assert with_code("a lone ` <") == "a lone ` &lt;"


def test_a_run_without_labels_says_so_and_measures_nothing(tmp_path: Path) -> None:
    benchmark = cirr_benchmark(20, 4, labelled=False)
    scores = random_scores(benchmark, np.random.default_rng(0), 100)
    made = verdict_of(
        tmp_path, benchmark, "cirr-removed-subset-scored", k=10, stage1=scores, stage2=scores
    )
    assert "no labels" in made.sentences[0][0]
    assert not made.tiles
    assert unescape(made.sql) == ""
