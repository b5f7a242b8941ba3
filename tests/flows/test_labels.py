"""A run that is named: found again, published, listed, and the same run as before."""

import json
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import duckdb
import pytest

from cir_core.errors import StoreBusy, UsageError
from flows.doors.cli import main
from flows.published import reading_run
from flows.views.run_list import print_runs
from flows.views.runs import run_summary
from flows.views.tables import Console
from storage.catalog import query
from storage.labels import Label
from storage.runs import find_run
from storage.store import LocalStore
from tasks.results.relabel import relabel
from tasks.results.run_list import list_runs
from tests.support.small_benchmarks import Finished


@pytest.fixture
def copied(fiq_run: Finished, tmp_path: Path) -> Finished:
    shutil.copytree(fiq_run.store, tmp_path / "store")
    return Finished(fiq_run.bench, tmp_path / "store", fiq_run.run)


def published(store: Path) -> list[tuple[object, ...]]:
    return query(store / "cir.duckdb", "SELECT run_id, name, tags FROM runs ORDER BY k")[1]


def test_a_name_makes_outputs_anew_and_nothing_else(copied: Finished) -> None:
    run_id = copied.run.run_id
    named = copied.bench.run(copied.store, run_name="baseline", tags=("paper", "k6"))
    assert (named.run_id, named.made) == (run_id, ("publish", "report"))
    assert published(copied.store) == [(run_id, "baseline", ["k6", "paper"])]
    assert "“baseline” (k6, paper)" in named.report.read_text("utf-8")
    summary = run_summary(named)
    assert (summary["name"], summary["tags"]) == ("baseline", ("k6", "paper"))
    again = copied.bench.run(copied.store)
    assert again.made == ()
    assert again.evaluated.label == Label("baseline", ("k6", "paper"))
    assert copied.bench.run(copied.store, tags=("paper",)).made == ()


def test_a_taken_name_is_refused_before_any_work(copied: Finished) -> None:
    copied.bench.run(copied.store, run_name="baseline")
    before = sorted(copied.store.rglob("*"))
    with pytest.raises(UsageError, match="another run is called 'baseline'") as caught:
        copied.bench.run(copied.store, k=4, run_name="baseline")
    assert copied.run.run_id in caught.value.item
    assert sorted(copied.store.rglob("*")) == before


def test_a_catalog_that_is_gone_or_lacks_the_run_is_made_anew_to_be_read(
    copied: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = find_run(LocalStore(copied.store), None)
    (copied.store / "cir.duckdb").unlink()
    with reading_run(run) as catalog:
        assert catalog.run(run.run_id)["k"] == 6
    with duckdb.connect(str(copied.store / "cir.duckdb")) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 6 AS k")
    with reading_run(run) as catalog:
        assert catalog.rows("SELECT k FROM mine JOIN runs USING (k)") == [{"k": 6}], "left alone"
    (copied.store / "cir.duckdb.sha256").unlink()

    def held(_: LocalStore) -> NoReturn:
        raise StoreBusy("held")

    monkeypatch.setattr(LocalStore, "lease", held)
    with reading_run(run) as catalog:
        assert catalog.run(run.run_id)["k"] == 6


def test_the_terminal_names_tags_and_lists_runs(
    copied: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: str) -> str:
        monkeypatch.setattr(
            sys, "argv", ["cir-pipeline", *words, "--store", str(copied.store), "--json"]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert ended.value.code == 0, told.err
        return told.out

    run_id, name = copied.run.run_id, 'a "<b>"'
    store = LocalStore(copied.store)
    assert not relabel(find_run(store, run_id), lambda label: label).has_other_page
    assert json.loads(call("runs", "name", run_id[:4], name))["name"] == name
    assert published(copied.store) == [(run_id, name, None)]
    assert relabel(find_run(store, name), lambda label: label).has_other_page
    assert json.loads(call("runs", "tag", name, "b", "a"))["tags"] == ["a", "b"]
    assert json.loads(call("runs", "untag", name, "b", "c"))["tags"] == ["a"]
    (listed,) = json.loads(call("runs", "ls"))
    assert (listed["run_id"], listed["name"], listed["tags"]) == (run_id, name, ["a"])
    recall = query(
        copied.store / "cir.duckdb",
        "SELECT stage2 FROM recall WHERE category = 'average' AND k = 10 AND pool = 'gallery'",
    )
    headline = {
        "metric": "recall",
        "k": 10,
        "stage": "stage2",
        "value": pytest.approx(recall[1][0][0]),
    }
    assert listed["headline"] == headline
    call("runs", "unname", name)
    assert published(copied.store) == [(run_id, None, ["a"])]
    print_runs(list_runs(store), Console())
    told = capsys.readouterr().out
    assert [one in told for one in (run_id, "tags", "name", "stage 1")] == [
        True,
        True,
        False,
        False,
    ]
