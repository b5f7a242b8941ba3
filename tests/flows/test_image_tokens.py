"""However images reach the models, a run gives the same: decoded here or elsewhere, seen by the
ViT or read from the store. Only with kept tokens is no picture opened again."""

import logging
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cir_core.errors import ImageProblem, OutOfSpace, ProblemsFound, WorkerLost
from storage.artifacts import Artifact
from storage.listings import finished
from storage.store import LocalStore
from tests.support.processes import children
from tests.support.small_benchmarks import Bench, Finished, Pair, rounding_of

KINDS = {
    "encode": {"embeddings": ["image_id"], "problems": ["item"]},
    "fuse": {"queries": ["query_id"], "unfused": ["item"]},
    "rerank": {"scores": ["query_id", "image_id"]},
}
"""Of the stages that see images: their tables, and what names a row."""

ROUNDED = {
    "embeddings.embedding", "queries.embedding", "queries.z_t", "scores.stage2_score",
}  # fmt: skip


@pytest.fixture
def own(fiq: Bench, tmp_path: Path) -> Bench:
    shutil.copytree(fiq.root, tmp_path / "data")
    return replace(fiq, root=tmp_path / "data")


def parts(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for stage in KINDS
        for path in store.glob(f"artifacts/{stage}/*/*.parquet")
    }


def columns(store: Path) -> dict[str, list[Any]]:
    """What these stages hold, in whatever parts and order it lies."""
    found: dict[str, list[Any]] = {}
    for stage, tables in KINDS.items():
        (artifact,) = finished(LocalStore(store), stage)
        for kind, keys in tables.items():
            table = artifact.read(kind).sort_by([(key, "ascending") for key in keys])
            found |= {f"{kind}.{name}": values for name, values in table.to_pydict().items()}
    return found


def assert_same_numbers(pair: Pair, store: Path, other: Path) -> None:
    atol = rounding_of(pair)
    found, wanted = columns(store), columns(other)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if name in ROUNDED:
            mine, theirs = as_numbers(found[name]), as_numbers(values)
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)
        else:
            assert found[name] == values


def as_numbers(values: list[Any]) -> np.ndarray:
    if isinstance(values[0], bytes):
        return np.frombuffer(b"".join(values), "<f4")
    return np.array(values)


def kept(store: Path) -> list[Path]:
    return sorted((store / "artifacts" / "tokens").glob("*/*.npy"))


def no_picture(*_: Any) -> bytes:
    raise ImageProblem("io_error", "a picture is opened again")


def test_worker_processes_change_no_byte_and_no_name(fiq_run: Finished, tmp_path: Path) -> None:
    run = fiq_run.bench.run(tmp_path, workers=2, until="evaluate")
    assert run.run_id == fiq_run.run.run_id
    assert parts(tmp_path) == parts(fiq_run.store)


def test_kept_tokens_give_the_same_run_and_serve_the_next(
    fiq_run: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = fiq_run.bench
    with caplog.at_level(logging.INFO, logger="tasks"):
        run = bench.run(tmp_path, tokens="cache", until="evaluate")
    assert "keeping image tokens" in caplog.text
    assert run.run_id == fiq_run.run.run_id
    assert_same_numbers(fiq_run.bench.pair, tmp_path, fiq_run.store)
    (file,) = kept(tmp_path)
    before = file.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "artifacts" / "encode")
    shutil.rmtree(tmp_path / "artifacts" / "rerank")
    monkeypatch.setattr("tasks.feed.decode.read_image", no_picture)
    again = bench.run(tmp_path, tokens="auto", until="evaluate")
    assert again.made == ("encode", "rerank")
    assert_same_numbers(fiq_run.bench.pair, tmp_path, fiq_run.store)
    assert file.stat().st_mtime_ns == before


def test_auto_keeps_nothing_and_recompute_does_not_look(
    fiq_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kept(fiq_run.store) == []  # made by the default, auto
    shutil.copytree(fiq_run.store, tmp_path / "store")
    fiq_run.bench.run(tmp_path / "store", k=4, tokens="cache", until="evaluate")
    assert len(kept(tmp_path / "store")) == 1
    monkeypatch.setattr("tasks.feed.decode.read_image", no_picture)
    with pytest.raises(ImageProblem, match="opened again"):
        fiq_run.bench.run(tmp_path / "store", k=8, tokens="recompute")


def test_a_damaged_cache_is_not_read(
    fiq_run: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    shutil.copytree(fiq_run.store, store)
    shutil.rmtree(store / "artifacts" / "rerank")
    fiq_run.bench.run(store, tokens="cache")
    (file,) = kept(store)
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    shutil.rmtree(store / "artifacts" / "rerank")
    with caplog.at_level(logging.WARNING):
        assert fiq_run.bench.run(store).made == ("rerank",)
    assert "damaged" in caplog.text
    assert_same_numbers(fiq_run.bench.pair, store, fiq_run.store)
    shutil.rmtree(store / "artifacts" / "rerank")
    fiq_run.bench.run(store, tokens="cache")
    assert file.read_bytes() == good


def test_tokens_that_do_not_fit_are_refused_before_any_are_made(
    fiq: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("storage.store.disk_usage", lambda _: usage)
    with pytest.raises(OutOfSpace) as refused:
        fiq.run(tmp_path, tokens="cache")
    assert "--tokens recompute" in refused.value.remedy
    assert "0.00 GiB (" in refused.value.cause
    assert kept(tmp_path) == []


def test_a_broken_picture_is_the_same_problem_whoever_decodes_it(
    own: Bench, tmp_path: Path
) -> None:
    path = own.root / "images" / "toptee-00.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ProblemsFound, match=r"toptee-00: truncated: .*toptee-00\.png") as here:
        own.run(tmp_path / "here", tokens="recompute")
    with pytest.raises(ProblemsFound) as there:
        own.run(tmp_path / "there", workers=1, tokens="cache")
    assert str(there.value) == str(here.value)


def test_a_killed_worker_loses_only_the_shard_in_flight(
    fiq_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.shards.PICTURES", 4)
    write = Artifact.write_part

    def killing(self: Artifact, name: str, table: Any) -> None:
        write(self, name, table)
        if name.startswith("unfused-0000004"):  # the second shard is whole
            for worker in children():
                os.kill(worker, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "write_part", killing)
        with pytest.raises(WorkerLost) as lost:
            fiq_run.bench.run(tmp_path, workers=1, batch=1)
    assert lost.value.exit_code == 10
    files = tmp_path.glob("artifacts/*/*/*-0000004-0000008.parquet")
    whole = {path: path.stat().st_mtime_ns for path in files}
    assert {path.parents[1].name for path in whole} == {"encode", "fuse"}
    again = fiq_run.bench.run(tmp_path, workers=1, until="evaluate")
    assert again.run_id == fiq_run.run.run_id
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert_same_numbers(fiq_run.bench.pair, tmp_path, fiq_run.store)
