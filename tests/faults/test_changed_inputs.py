"""Inputs that change while they are used: what is named is what was read, or nothing is made."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cir_core.datasets.own import Layout, OwnData
from cir_core.datasets.registry import Dataset, find_dataset
from cir_core.errors import PreflightError
from flows.drift import InputsChanged, require_unchanged
from flows.engines.engine import InProcess
from flows.run import run_pipeline
from storage import views
from storage.atomic import sha256_of
from storage.listings import finished
from storage.models.folders import (
    ModelIdentity,
    read_config,
    read_identity,
    read_tensors,
    write_checkpoint,
)
from storage.store import LocalStore
from tasks.stages.changes import find_changed
from tasks.stages.ingest import Reading, ingest
from tasks.stages.pair import check_pair
from tasks.training.triplets import read_triplets
from tests.support.small_benchmarks import Bench, Finished, Pair
from tests.support.then import Then
from tests.support.tiny_models import tiny_stage1

LABELLED = "reference,text,target\na.png,in red,b.png\n"
CORRECTED = "reference,text,target\na.png,in red,c.png\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Own data: three pictures, one query."""
    folder = tmp_path / "data"
    folder.mkdir()
    for shade, name in enumerate("abc"):
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(folder / f"{name}.png")
    (folder / "queries.csv").write_text(LABELLED)
    return folder


def made_of(made: Reading) -> dict[str, str]:
    inputs: dict[str, str] = made.ingested.identity()["inputs"]
    return inputs


def targets(made: Reading) -> list[list[str]]:
    found: list[list[str]] = made.ingested.read("queries")["targets"].to_pylist()
    return found


@dataclass(frozen=True)
class Meddling:
    """Own data whose adapter, having read all, lets something happen to the files."""

    then: Callable[[], object]
    adapter: Any = field(default_factory=lambda: find_dataset("own").adapter)
    categories: tuple[str, ...] = ()

    def annotation_files(self, *arguments: Any) -> list[str]:
        files: list[str] = self.adapter.annotation_files(*arguments)
        return files

    def parse(self, *arguments: Any) -> Any:
        benchmark = self.adapter.parse(*arguments)
        self.then()
        return benchmark


def own(then: Callable[[], object] = lambda: None) -> Dataset:
    return replace(find_dataset("own"), adapter=Meddling(then))


def ingested(store: Path, root: Path, dataset: Dataset, split: Any = "val") -> Reading:
    return ingest(LocalStore(store), root, dataset, split, (), "own-removed")


# --- annotations


def test_labels_corrected_while_they_are_parsed_have_another_name(root: Path) -> None:
    store, table = root.parent / "store", root / "queries.csv"
    old = sha256_of(table)
    first = ingested(store, root, own(lambda: table.write_text(CORRECTED)))
    assert targets(first) == [["b.png"]]
    assert made_of(first)["queries.csv"] == old
    second = ingested(store, root, own())
    assert targets(second) == [["c.png"]]
    assert second.ingested != first.ingested
    assert not second.reused


def test_a_picture_that_comes_to_the_folder_is_another_gallery(root: Path) -> None:
    store = root.parent / "store"
    first = ingested(store, root, own())
    (root / "d.png").write_bytes((root / "a.png").read_bytes())
    second = ingested(store, root, own())
    assert made_of(second)["gallery"] != made_of(first)["gallery"]


def test_a_training_refuses_annotations_that_were_not_ingested(root: Path) -> None:
    store, table = root.parent / "store", root / "queries.csv"
    table.write_text(LABELLED + "".join(f"a.png,shade {n},c.png\n" for n in range(9)))
    made = ingested(store, root, own(), "train")
    table.write_text(table.read_text().replace("c.png", "b.png"))
    with pytest.raises(PreflightError, match="changed since they were ingested") as caught:
        read_triplets(root, own(), made.ingested, None, tiny_stage1(), ["first"])
    assert caught.value.item == str(table)


# --- weights


@pytest.fixture
def bench(fiq: Bench, tmp_path: Path) -> Bench:
    """The small Fashion-IQ with a model pair of its own, to be swapped."""
    for stage in ("stage1", "stage2"):
        shutil.copytree(getattr(fiq.pair, stage), tmp_path / stage)
    return replace(fiq, pair=Pair(tmp_path / "stage1", tmp_path / "stage2"))


def write_over(folder: Path) -> Path:
    """Another model of the same shape and visual encoder in its place."""
    config, tensors = read_config(folder), read_tensors(folder)
    changed = next(name for name in reversed(tensors) if not name.startswith("vision."))
    write_checkpoint(folder, config, tensors | {changed: tensors[changed] + 0.5})
    return folder


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_weights_put_in_place_after_the_check_are_refused(
    bench: Bench, fiq_run: Finished, stage: str
) -> None:
    folder: Path = getattr(bench.pair, stage)
    store, first = folder.parent / "store", folder.parent / "first"
    shutil.copytree(folder, first)
    settings = bench.settings(store)
    with pytest.raises(PreflightError, match="model has changed since this run began") as refusal:
        run_pipeline(settings, Then(check_pair=lambda: write_over(folder)))
    assert refusal.value.exit_code == 4
    assert refusal.value.item == str(folder / "model.safetensors")
    shutil.rmtree(folder)
    first.rename(folder)  # the first one is put back
    run = run_pipeline(settings, InProcess())
    assert {"rerank", "report"} <= set(run.made)
    assert run.run_id == fiq_run.run.run_id
    assert scores(store) == scores(fiq_run.store)


def test_weights_put_in_place_while_the_pair_is_checked_are_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named_then_swapped(folder: Path) -> ModelIdentity:
        name = read_identity(folder)
        write_over(folder)
        return name

    monkeypatch.setattr("tasks.stages.pair.read_identity", named_then_swapped)
    store = bench.pair.stage1.parent / "store"
    with pytest.raises(PreflightError, match="model has changed"):
        check_pair(LocalStore(store), bench.pair.stage1, bench.pair.stage2)
    assert not (store / "artifacts").exists()


def scores(store: Path) -> list[list[dict[str, Any]]]:
    return [one.read("scores").to_pylist() for one in finished(LocalStore(store), "rerank")]


# --- images


@pytest.fixture
def again(fiq_run: Finished, bench: Bench, tmp_path: Path) -> Finished:
    """A finished run with data, models and a store of its own."""
    shutil.copytree(fiq_run.bench.root, tmp_path / "data")
    shutil.copytree(fiq_run.store, tmp_path / "store")
    return Finished(replace(bench, root=tmp_path / "data"), tmp_path / "store", fiq_run.run)


def repaint(path: Path) -> Path:
    Image.new("RGB", (64, 64), (1, 2, 3)).save(path)
    return path


@pytest.mark.parametrize(
    ("stages", "after"), [(("encode", "rerank"), "ingest"), (("rerank",), "retrieve")]
)
def test_an_image_that_changes_before_it_is_used_is_refused(
    again: Finished, stages: tuple[str, ...], after: str
) -> None:
    for stage in stages:
        shutil.rmtree(again.store / "artifacts" / stage)
    picture = again.bench.root / "images" / "dress-03.jpg"
    settings = again.bench.settings(again.store)
    with pytest.raises(PreflightError, match="image has changed since this run began") as refusal:
        run_pipeline(settings, Then(**{after: lambda: repaint(picture)}))
    assert refusal.value.item == "images/dress-03.jpg"


# --- after use


def test_an_image_that_changes_after_its_use_is_told_at_the_end(again: Finished) -> None:
    picture = again.bench.root / "images" / "dress-03.jpg"
    settings = again.bench.settings(again.store)
    run = run_pipeline(settings, Then(evaluate=lambda: repaint(picture)))
    assert run.run_id == again.run.run_id  # of the picture that was used
    assert run.report.is_file()
    assert run.changed == (str(picture),)
    with pytest.raises(InputsChanged) as told:
        require_unchanged(run)
    assert told.value.exit_code == 3
    assert told.value.item == str(picture)
    assert pickle.loads(pickle.dumps(told.value)).run == run
    following = run_pipeline(settings, InProcess())
    assert following.run_id != run.run_id
    assert following.changed == ()


def test_whatever_has_changed_is_told(again: Finished) -> None:
    root, pair = again.bench.root, again.bench.pair
    split = root / "image_splits" / "split.dress.val.json"
    gone = root / "images" / "toptee-01.jpg"

    def meddle() -> None:
        split.write_text(split.read_text() + " ")
        gone.unlink()
        write_over(pair.stage2)

    run = run_pipeline(again.bench.settings(again.store), Then(report=meddle))
    assert run.made == ()
    assert set(run.changed) == {str(split), str(gone), str(pair.stage2)}


def test_files_written_again_with_the_same_bytes_have_not_changed(again: Finished) -> None:
    files = [*again.bench.root.rglob("*.*"), *again.bench.pair.stage1.iterdir()]

    def write_again() -> None:
        for path in files:
            path.write_bytes(path.read_bytes())

    run = run_pipeline(again.bench.settings(again.store), Then(report=write_again))
    assert run.changed == ()


@pytest.mark.parametrize("gallery", [None, "gallery.csv"])
def test_a_picture_that_comes_is_told_where_the_folder_is_the_gallery(
    root: Path, gallery: str | None
) -> None:
    (root / "gallery.csv").write_text("image\na.png\nb.png\nc.png\nd.png\n")
    shutil.copy(root / "a.png", root / "d.png")
    (root / "e.png").write_bytes(b"")  # passed over by the list
    store = root.parent / "store"
    dataset = replace(find_dataset("own"), adapter=OwnData(Layout(gallery=gallery)))
    made = ingest(LocalStore(store), root, dataset, "val", (), "own-removed")
    pair = views.Pair(LocalStore(store), "of no models")
    assert find_changed(made, pair, {}) == ()
    shutil.copy(root / "a.png", root / "f.png")
    told = find_changed(made, pair, {})
    assert told == (() if gallery else (f"{root} (images that came: 1)",))
