"""``verify`` and ``store`` on the terminal, over finished runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cir_core.protocols import PROTOCOLS
from storage.catalog import CATALOG_FILE, query
from storage.garbage import Wish, garbage, remove
from storage.labels import Label, write_label
from storage.store import LocalStore
from storage.survey import survey
from storage.views import Evaluated
from tasks.stages.output import make_output
from tasks.stages.publish import Publish
from tasks.upkeep.collect import collect, wished
from tests.cli.test_cli import Terminal, assert_told, terminal
from tests.support.made_runs import circo_benchmark, random_scores, write_run
from tests.support.small_benchmarks import Finished

__all__ = ["terminal"]

PROTOCOL = next(name for name, one in PROTOCOLS.items() if one.dataset == "circo")


@pytest.fixture
def runs(tmp_path: Path) -> list[Evaluated]:
    """Two, of one store, that share their data; published."""
    benchmark, rng = circo_benchmark(12, 5), np.random.default_rng(0)
    stage1 = random_scores(benchmark, rng, 9)
    made = [
        write_run(tmp_path / "store", benchmark, protocol=PROTOCOL, k=k, stage1=stage1, stage2=None)
        for k in (3, 4)
    ]
    found = [Evaluated(LocalStore(tmp_path / "store"), one) for one in made]
    for run in found:
        make_output(Publish(run))
    return found


def published(run: Evaluated) -> set[str]:
    return {row[0] for row in query(run.store.local(CATALOG_FILE), "SELECT run_id FROM runs")[1]}


def test_the_catalog_forgets_a_run_that_is_given_up(runs: list[Evaluated]) -> None:
    first, second = runs
    assert published(first) == {first.run_id, second.run_id}
    collect(first.store, wished([second], interrupted=False, tokens=False))
    assert published(first) == {first.run_id}
    assert Publish(first).is_done
    collect(first.store, wished([first], interrupted=True, tokens=True))
    assert [name for name in first.store.files() if not name.startswith("locks/")] == []


def test_a_removal_that_was_killed_is_ended_by_the_next(runs: list[Evaluated]) -> None:
    first, second = runs
    wish = wished([second], interrupted=False, tokens=False)
    (manifest, *_) = garbage(survey(first.store), wish)
    remove(first.store, [manifest])
    assert published(first) == {first.run_id, second.run_id}
    collect(first.store, Wish())
    assert published(first) == {first.run_id}


def test_the_verbs_tell_of_a_store_and_remove_what_is_asked(
    terminal: Terminal, fiq_run: Finished, tmp_path: Path
) -> None:
    shutil.copytree(fiq_run.store, tmp_path / "store")
    store, run_id = LocalStore(tmp_path / "store"), fiq_run.run.run_id
    given = ("--store", store)
    models = ("--stage1", fiq_run.bench.pair.stage1, "--stage2", fiq_run.bench.pair.stage2)
    assert terminal("verify", *given, *models).out.startswith("whole: ")
    assert json.loads(terminal("verify", *given, "--json").out)["ok"]
    listed = json.loads(terminal("store", "ls", *given, "--json").out)
    assert {one["stage"] for one in listed} == {*fiq_run.run.artifacts, "pair"}
    assert {tuple(one["runs"]) for one in listed if one["stage"] != "pair"} == {(run_id,)}
    assert "evaluate" in terminal("store", "ls", *given).out
    usage = json.loads(terminal("store", "du", *given, "--json").out)
    assert usage["bytes"] == sum(store.files().values())
    assert run_id in terminal("store", "du", *given).out
    before = store.files()
    kept = terminal("store", "gc", *given, "--dry-run")
    assert kept.out.splitlines()[-1].endswith("would be removed")
    asked = (*given, "--run", run_id[:6], "--json")
    gone = json.loads(terminal("store", "gc", *asked, "--dry-run").out)
    assert not gone["removed"]
    assert store.files() == before
    removed = json.loads(terminal("store", "gc", *asked).out)
    assert removed == gone | {"removed": True}
    assert "no artifact" not in terminal("store", "ls", *given).out  # the check of the models
    assert store.size(CATALOG_FILE) is None
    assert_told(terminal("store", "gc", *given, "--run", run_id), 4, "no finished run")


def test_a_damaged_store_is_told_on_both_streams(
    terminal: Terminal, fiq_run: Finished, tmp_path: Path
) -> None:
    shutil.copytree(fiq_run.store, tmp_path / "store")
    store = LocalStore(tmp_path / "store")
    write_label(store, fiq_run.run.run_id, Label("mine"))
    label = store.local(f"labels/{fiq_run.run.run_id}.json")
    label.write_bytes(label.read_bytes().replace(b"mine", b"mane"))
    answer = terminal("verify", "--store", store, "--json")
    assert answer.code == 6
    (fault,) = json.loads(answer.out)["faults"]
    assert fault["item"] == f"labels/{label.name}"
    assert fault["item"] in answer.err
    assert "runs name" in answer.err
    assert "damaged" in terminal("verify", "--store", store).out
    assert_told(terminal("verify", "--store", tmp_path / "none"), 4, "no store")
