"""Runs compared: numbers beside the runs' own, what is refused, and what is told of it."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cir_core.errors import PreflightError, UsageError
from cir_core.protocols import PROTOCOLS
from cir_core.types import Benchmark, ImageId, Query, QueryId
from flows.comparison_settings import ComparisonSettings
from storage.labels import Label, write_label
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.results.compare.answers import Measure, measures_of
from tasks.results.compare.cells import verdict
from tasks.results.compare.compare import FILES, Compared, compare
from tasks.results.compare.comparison import Asked
from tasks.stages.evaluate import Evaluate
from tests.support.made_runs import (
    circo_benchmark,
    cirr_benchmark,
    made,
    random_scores,
    write_run,
)

FIQ, CIRR, CIRCO = "fiq-original-kept", "cirr-removed-subset-scored", "circo-kept-caption"
FAST = Asked(rounds=99)
HOSTILE = '<script>alert("1")</script> & | \\ $x_1$ `a` 100 %'


def fiq_benchmark(queries: int = 12, *, images: int = 15, labelled: bool = True) -> Benchmark:
    """Two categories, of which one has a third of the queries."""
    galleries = {
        name: tuple(ImageId(f"{name}-{number:02d}") for number in range(images))
        for name in ("dress", "shirt")
    }
    asked = [
        Query(
            query_id=QueryId(f"{name}-{number:03d}"),
            category=name,
            reference_id=galleries[name][number % images],
            text=HOSTILE if number == 0 else f"is {number}",
            targets=(galleries[name][(number + 1) % images],) if labelled else (),
        )
        for name, count in (("dress", queries), ("shirt", queries // 2))
        for number in range(count)
    ]
    return Benchmark(galleries, tuple(asked), {})


CIRCO_BENCHMARK = partial(circo_benchmark, 20, 9)
UNLABELLED = partial(fiq_benchmark, labelled=False)


def scores(benchmark: Benchmark, seed: int) -> Mapping[str, np.ndarray]:
    return random_scores(benchmark, np.random.default_rng(seed), 1000)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of runs that several tests read."""
    return tmp_path_factory.mktemp("store")


@cache
def run_of(
    store: Path,
    kind: Callable[[], Benchmark] = fiq_benchmark,
    protocol: str = FIQ,
    seed: int = 1,
    k: int = 6,
    split: str = "val",
) -> Evaluated:
    """The same run of the same arguments."""
    benchmark = kind()
    fingerprint = write_run(
        store,
        benchmark,
        protocol=protocol,
        k=k,
        stage1=scores(benchmark, 0),
        stage2=scores(benchmark, seed),
        model=f"{seed:064x}",
        annotations=sha256(repr(benchmark).encode()).hexdigest(),
        split=split,
    )
    return Evaluated(LocalStore(store), fingerprint)


def stage1_alone(run: Evaluated) -> Evaluated:
    candidates = run.candidates
    stage = Evaluate(run.store, run.ingested, candidates.encoded, candidates, None, 6)
    return made(stage).made


def compared_of(*runs: Evaluated, **asked: Any) -> Compared:
    names = [run.fingerprint for run in runs]
    return compare(runs[0].store, names, asked=FAST, **asked)


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (fiq_benchmark, FIQ),
        (partial(cirr_benchmark, 14, 11), CIRR),
        (CIRCO_BENCHMARK, CIRCO),
        (partial(fiq_benchmark, 1), "fiq-original-removed"),
    ],
    ids=["fiq", "cirr", "circo", "one query"],
)
def test_a_runs_values_are_its_metrics(
    store: Path, kind: Callable[[], Benchmark], protocol: str
) -> None:
    first, second = (run_of(store, kind, protocol, seed=seed) for seed in (1, 2))
    for stage in ("stage1", "stage2"):
        made_of = compared_of(first, second, stage=stage).comparison
        measures = measures_of([PROTOCOLS[protocol]])
        assert [one.measure for one in made_of.standings] == measures
        for place, run in enumerate((first, second)):
            own = metrics(run, stage)
            for one in made_of.standings:
                expected = own[one.measure.metric, one.measure.k]
                assert tuple(one.values[place]) == pytest.approx(expected), one.measure
        for pair in made_of.pairs:
            for difference in pair.differences:
                standing = made_of.standings[measures.index(difference.measure)]
                gain = standing.values[0].value - standing.values[1].value
                assert difference.interval.value == pytest.approx(gain)
                assert sum(difference.outcome) == made_of.labelled


def metrics(run: Evaluated, stage: str) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Averages over categories, or of the only one."""
    rows = [row for row in run.read("metrics").to_pylist() if row["stage"] == stage]
    averaged = [row for row in rows if row["category"] == "average"] or rows
    return {
        (row["metric"], row["k"]): (row["value"], row["ci_low"], row["ci_high"]) for row in averaged
    }


def test_runs_that_answer_alike_do_not_differ(store: Path) -> None:
    first = run_of(store)
    second = run_of(store, seed=2)
    (pair,) = compared_of(first, second, stage="stage1").comparison.pairs
    assert all((one.p, one.p_holm) == (1, 1) for one in pair.differences)
    assert all(one.interval.value == one.d_z == 0 for one in pair.differences)
    assert pair.by_rank == (0, 0, 18)
    assert pair.overlap is not None
    assert pair.overlap.same_first == 1


def test_swapping_runs_changes_signs_alone(store: Path) -> None:
    runs = [run_of(store, seed=seed) for seed in (1, 2)]
    ((there,), (back,)) = (compared_of(*one).comparison.pairs for one in (runs, runs[::-1]))
    assert (there.by_rank.wins, there.by_rank.losses) == (back.by_rank.losses, back.by_rank.wins)
    assert there.overlap == back.overlap
    for one, other in zip(there.differences, back.differences, strict=True):
        assert (one.p, one.p_holm) == (other.p, other.p_holm)
        value, low, high = other.interval
        assert tuple(one.interval) == pytest.approx((-value, -high, -low))
        assert one.d_z == pytest.approx(-other.d_z)


def test_all_pairs_of_several_runs_are_tested_and_corrected_together(store: Path) -> None:
    runs = [run_of(store, seed=seed) for seed in (1, 2, 3)]
    result = compared_of(*runs)
    comparison = result.comparison
    assert [(one.first, one.second) for one in comparison.pairs] == [(0, 1), (0, 2), (1, 2)]
    every = [one for pair in comparison.pairs for one in pair.differences]
    assert comparison.tests == len(every) == 3 * 5
    smallest = min(every, key=lambda one: one.p)
    assert smallest.p_holm == pytest.approx(min(1, 15 * smallest.p))
    best = [one.best for one in comparison.standings]
    assert best == [int(np.argmax([v.value for v in one.values])) for one in comparison.standings]
    brief = {row[1] for row in result.told.tables[1].rows}
    assert brief == {runs[1].run_id, runs[2].run_id}
    assert len(result.summary["pairs"]) == 3
    assert "Shown are pairs with the first run" in result.told.notes[-1]
    for name in ("index.html", "comparison.md", "comparison.tex"):
        assert "that does not make them equal" in result.texts[name]


def test_the_verdict_names_the_best_what_is_tied_with_it_and_what_is_not(store: Path) -> None:
    for seed, name in ((1, "one"), (2, "two"), (3, "three")):
        write_label(LocalStore(store), run_of(store, seed=seed).run_id, Label(name))
    comparison = compared_of(*(run_of(store, seed=seed) for seed in (1, 2, 3))).comparison
    first, second, *others = comparison.standings
    standings = [
        dataclasses.replace(first, best=1, tied=frozenset({1, 2})),
        dataclasses.replace(second, best=0, tied=frozenset({0})),
        *(dataclasses.replace(one, tied=frozenset({0, 1, 2})) for one in others),
    ]
    one, two, alike = verdict(dataclasses.replace(comparison, standings=standings))
    assert one.startswith(f"By {first.measure.title}, “two” is the best, ")
    assert one.endswith("tests tell it from “one”, but not from “three”.")
    assert two.endswith("tests tell it from “two”, “three”.")
    assert alike.startswith(f"No test tells any run from the best by {others[0].measure.title}")
    assert not [*verdict(dataclasses.replace(comparison, standings=[]))]


def test_another_k_and_a_run_of_stage_1_alone_compare(store: Path) -> None:
    small, large = (run_of(store, k=k) for k in (3, 9))
    alone = stage1_alone(large)
    result = compared_of(small, large, alone)
    assert [each.stage for each in result.comparison.answers] == ["stage2", "stage2", "stage1"]
    assert any("re-ranked nothing" in text for text in result.told.warnings)
    assert [row[2:4] for row in result.told.tables[0].rows] == [
        ["stage 2", "3"], ["stage 2", "9"], ["stage 1", "6"]
    ]  # fmt: skip
    with pytest.raises(PreflightError, match="no order of stage 2"):
        compared_of(small, alone, stage="stage2")
    (pair,) = compared_of(large, alone, stage="stage1").comparison.pairs
    assert pair.overlap is not None
    assert pair.overlap.rbo == pytest.approx(1)


def test_without_labels_orders_alone_are_compared(store: Path) -> None:
    result = compared_of(*(run_of(store, UNLABELLED, seed=seed) for seed in (1, 2)))
    assert (result.comparison.standings, result.comparison.tests) == ([], 0)
    assert any("no labels" in text for text in result.told.warnings)
    assert [len(table.rows) for table in result.told.tables] == [2, 1]
    assert result.summary["pairs"][0]["overlap"]["n"] == 18


# --- what is refused


OTHERS: dict[str, tuple[Callable[[], Benchmark], dict[str, Any], str]] = {
    "protocol": (fiq_benchmark, {"protocol": "fiq-union-kept"}, "fiq-union-kept"),
    "split": (fiq_benchmark, {"split": "train"}, "fiq train"),
    "gallery of dress": (partial(fiq_benchmark, images=16), {}, "16 images"),
    "queries": (partial(fiq_benchmark, 10), {}, "15, "),
}


@pytest.mark.parametrize("what", OTHERS)
def test_runs_that_differ_are_refused_or_share_some_queries(store: Path, what: str) -> None:
    kind, changed, value = OTHERS[what]
    benchmark, first, other = kind(), run_of(store), run_of(store, kind, **changed)
    with pytest.raises(PreflightError, match="do not compare") as refused:
        compared_of(first, other)
    assert f"{what}:" in refused.value.item
    assert re.search(rf"{other.run_id}  .*{value}", refused.value.item)
    assert "--anyway" in refused.value.remedy
    result = compared_of(first, other, anyway=True)
    shared = sum(
        one.targets == {q.query_id: q.targets for q in fiq_benchmark().queries}[one.query_id]
        for one in benchmark.queries
    )
    assert result.comparison.labelled == shared
    assert not result.summary["comparable"]
    assert not result.told.verdict, "of different tasks no run is the best"
    for name, text in result.texts.items():
        if name != "comparison.json":
            assert "NOT THE SAME: the runs differ in " in text, name
            assert f"{shared:,}" in text
    assert result.summary["queries"] == shared
    assert result.summary["differing"][0]["what"] == what


def test_what_shares_no_query_is_refused_always(store: Path) -> None:
    runs = run_of(store), run_of(store, CIRCO_BENCHMARK, CIRCO)
    with pytest.raises(UsageError, match="share no query"):
        compared_of(*runs, anyway=True)


def test_one_run_and_one_twice_are_refused(store: Path) -> None:
    run = run_of(store)
    with pytest.raises(UsageError, match="two runs or more"):
        compared_of(run)
    with pytest.raises(UsageError, match="named twice"):
        compared_of(run, run)


# --- what is written


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def test_hostile_names_and_texts_are_inert_everywhere(store: Path) -> None:
    runs = [run_of(store, seed=seed) for seed in (1, 2)]
    name = HOSTILE.replace(",", "")
    write_label(runs[0].store, runs[0].run_id, Label(name))
    result = compare(runs[0].store, [name, runs[1].run_id], asked=FAST)
    write_label(runs[0].store, runs[0].run_id, Label())
    assert [one.name for one in result.files] == list(FILES)
    assert [one.read_text("utf-8") for one in result.files] == list(result.texts.values())
    page, markdown, latex, summary = result.texts.values()
    parsed = _Tags()
    parsed.feed(page)
    assert parsed.found.count("script") == 1, "the page's own"
    assert "<script" not in markdown
    assert all(
        len(re.findall(r"(?<!\\)\|", line)) in (0, 9, 11, 12) for line in markdown.split("\n")
    )
    assert r"\textless{}script\textgreater{}" in latex
    assert json.loads(summary)["runs"][0]["name"] == name
    assert page.count("Queries that differ most") == 1


def test_the_same_comparison_is_written_to_the_same_place(store: Path, tmp_path: Path) -> None:
    runs = [run_of(store, seed=seed) for seed in (1, 2)]
    first, again = compared_of(*runs), compared_of(*runs)
    assert (first.texts, first.files) == (again.texts, again.files)
    assert compared_of(*runs, stage="stage1").files != first.files
    beside = compared_of(*runs, folder=tmp_path / "out")
    assert beside.files[0] == tmp_path / "out" / "index.html"
    assert 'href="../' in first.texts["index.html"]
    assert 'href="../' not in beside.texts["index.html"]


@pytest.mark.parametrize(
    ("form", "begins"),
    [("table", "fiq val, protocol"), ("markdown", "**fiq val"), ("latex", "%"), ("json", "{")],
)
def test_the_terminal_prints_each_form(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
    begins: str,
) -> None:
    from flows.doors.cli import main

    runs = [run_of(store, seed=seed).run_id for seed in (1, 2)]
    words = ["compare", *runs, "--store", str(store), "--format", form, "--rounds", "99"]
    monkeypatch.setattr(sys, "argv", ["cir-pipeline", *words])
    monkeypatch.chdir(store)
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    assert told.out.startswith(begins)
    assert "page: " in told.out + told.err


def test_settings_have_the_comparisons_own_defaults() -> None:
    settings = ComparisonSettings()
    assert Asked(settings.rounds, settings.persistence) == Asked()


@pytest.mark.parametrize(
    "flag", ["--rounds=0", "--persistence=0", "--persistence=1", "--stage=stage3"]
)
def test_what_is_no_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    from flows.doors.cli import main

    monkeypatch.setattr(sys, "argv", ["cir-pipeline", "compare", "a", "b", flag])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert flag.partition("=")[0].strip("-") in capsys.readouterr().err


def test_measures_that_two_protocols_share() -> None:
    fiq, cirr = PROTOCOLS[FIQ], PROTOCOLS[CIRR]
    assert measures_of([cirr, fiq]) == measures_of([fiq])
    assert Measure("cirr_average", 0) in measures_of([cirr])


def test_runs_are_chosen_by_their_tags(store: Path) -> None:
    runs = [run_of(store, seed=seed) for seed in (1, 2, 3)]
    for run, tags in zip(runs, (["a"], ["a", "b"], ["b"]), strict=True):
        write_label(run.store, run.run_id, Label().tagged(tags))

    def chosen(names: list[str], *tags: str) -> set[str]:
        result = compare(runs[0].store, names, tags=tags, asked=FAST)
        return {each.run.run_id for each in result.comparison.answers}

    ids = [run.run_id for run in runs]
    assert chosen([], "a") == {*ids[:2]}
    assert chosen([ids[0]], "a", "b") == {*ids[:2]}
    assert chosen(ids[1:2], "b") == {*ids[1:]}
    with pytest.raises(UsageError, match="two runs or more"):
        chosen([], "a", "b")
    with pytest.raises(UsageError, match="no run with this tag"):
        chosen(ids, "c")
    for run in runs:
        write_label(run.store, run.run_id, Label())
