"""``kill -9`` at any point: the same command finishes, redoes little, and ends the same."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.artifacts import Artifact
from storage.catalog import CATALOG_FILE, query
from storage.store import LocalStore
from tests.support.killed_run import Kill, killer
from tests.support.small_benchmarks import Bench, Finished
from tests.support.store_contents import contents, tables

SHARD = 8
"""Images per part: four shards of encoding, so that a run can die between two of them."""

POINTS = [
    ("artifacts/ingest/*/queries.parquet", "torn"),
    ("artifacts/encode/*/embeddings-0000008-0000016.parquet", "before"),
    ("artifacts/fuse/*/queries-0000016-0000024.parquet", "after"),
    ("artifacts/encode/*/manifest.json", "after"),  # encode is whole, fuse is not yet
    ("artifacts/retrieve/*/targets-00000.receipt.json", "torn"),
    ("artifacts/rerank/*/scores-0000016-0000024.parquet", "torn"),
    ("artifacts/rerank/*/manifest.json", "before"),
    ("artifacts/rank/*/rankings.receipt.json", "before"),
    ("artifacts/evaluate/*/manifest.json", "torn"),
    ("cir.duckdb", "torn"),
    ("cir.duckdb", "after"),
    ("reports/*/index.html", "after"),
]
"""In the order of a run. A process that has lived through one point dies at the next."""


@pytest.fixture(scope="module")
def run_and_kill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kill]:
    with killer(tmp_path_factory.mktemp("killed") / "log") as kill:
        yield kill


SHARDED = ("encode", "fuse", "rerank")
"""Stages that take hours, part by part. Of the others, what is in flight is the whole stage."""


def kept_parts(store: Path) -> dict[Path, tuple[int, int]]:
    """Parts that may not be made again, and what tells a rewritten file from an old one."""
    kept = {}
    for path in store.glob("artifacts/*/*/*.parquet"):
        artifact = Artifact(LocalStore(store), path.parent.parent.name, path.parent.name)
        is_done = (path.parent / "manifest.json").exists()
        if is_done or (artifact.stage in SHARDED and artifact.has_part(path.stem)):
            kept[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return kept


def recorded(store: Path) -> dict[str, float]:
    """By stage, the share of its parts whose making is recorded."""
    return dict(query(store / "cir.duckdb", "SELECT stage, recorded FROM costs")[1])


@pytest.fixture
def in_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.shards.PICTURES", SHARD)


@pytest.mark.usefixtures("in_shards")
def test_a_run_that_is_killed_again_and_again_ends_like_an_undisturbed_one(
    fiq: Bench, run_and_kill: Kill, tmp_path: Path
) -> None:
    store, calm = tmp_path / "killed", tmp_path / "calm"
    kept: dict[Path, tuple[int, int]] = {}
    grew = 0
    for pattern, moment in POINTS:
        run_and_kill(fiq.settings(store), pattern, moment, SHARD)
        now = kept_parts(store)
        assert kept.items() <= now.items(), f"killed at {pattern}: redid what was done"
        grew += len(now) > len(kept)
        kept = now
    assert grew >= 7
    run = fiq.run(store)
    assert run.made == ("report",)
    assert kept == kept_parts(store)
    assert fiq.run(calm).run_id == run.run_id
    assert contents(LocalStore(store)) == contents(LocalStore(calm))
    assert min(recorded(calm).values()) == 1
    assert recorded(store)["rerank"] < 1, "what a kill let nobody record is told"
    assert [path.name for path in store.iterdir() if path.name.startswith(".")] == []
    assert fiq.run(store).made == ()


def test_a_run_killed_while_it_repairs_a_damaged_part_ends_the_same(
    fiq_run: Finished, run_and_kill: Kill, tmp_path: Path
) -> None:
    """Damaged, set aside, killed before the new part is in place."""
    store = tmp_path / "store"
    shutil.copytree(fiq_run.store, store)
    (part,) = (store / "artifacts" / "rerank").glob("*/*.parquet")
    good = part.read_bytes()
    part.write_bytes(good[:-1])
    settings = fiq_run.bench.settings(store)
    run_and_kill(settings, "artifacts/rerank/*/*.parquet", "before", SHARD)
    assert not part.exists()
    assert fiq_run.bench.run(store).made == ("rerank",)
    assert part.read_bytes() == good
    assert sorted(os.listdir(part.parent)) == ["manifest.json", part.name]
    manifest = json.loads((part.parent / "manifest.json").read_text())
    assert list(manifest["parts"]) == [part.stem]
    assert tables(store / CATALOG_FILE) == tables(fiq_run.store / CATALOG_FILE)
