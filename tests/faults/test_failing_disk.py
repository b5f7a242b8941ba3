"""A disk that fails on one image: a problem when it is ingested; later, a stop that is not kept."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cir_core.errors import ImageProblem, ProblemsFound
from storage.catalog import query
from storage.sources.images import read_image
from tests.support.small_benchmarks import Bench, Finished

BAD = "images/dress-03.jpg"


@pytest.fixture
def own(fiq: Bench, tmp_path: Path) -> Bench:
    shutil.copytree(fiq.root, tmp_path / "data")
    return replace(fiq, root=tmp_path / "data")


def failing(root: Path, relative: str) -> bytes:
    if relative == BAD:
        raise ImageProblem("io_error", "reading an image failed", item=BAD)
    return read_image(root, relative)


def test_a_failing_image_is_a_problem_and_the_others_go_on(
    own: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def fail(path: Path, flags: int, *rest: int, **named: int) -> int:
        if str(path).endswith(BAD):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr("storage.sources.images.os.open", fail)
    with pytest.raises(ProblemsFound, match="dress-03: io_error") as caught:
        own.run(tmp_path / "store")
    assert caught.value.exit_code == 3
    run = own.run(tmp_path / "store", allow_missing=1)
    where = f"WHERE run_id = '{run.run_id}' AND item = 'dress-03'"
    _, listed = query(run.catalog, f"SELECT kind, message FROM problems {where}")
    ((kind, message),) = listed
    assert kind == "io_error"
    assert os.strerror(errno.EIO) in message


@pytest.mark.parametrize("task", ["encode", "rerank"])
def test_what_failed_after_ingest_is_tried_again_by_the_next_run(
    own: Bench, fiq_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """The bytes are those that were ingested: a problem kept with the encoding would stay, long
    after the disk is well again."""
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr("tasks.feed.decode.read_image", failing)
        if task == "rerank":
            shutil.copytree(fiq_run.store, store)
            shutil.rmtree(store / "artifacts" / "rerank")
        with pytest.raises(ImageProblem) as caught:
            own.run(store)
    assert (caught.value.exit_code, caught.value.kind) == (3, "io_error")
    assert own.run(store).run_id == fiq_run.run.run_id
