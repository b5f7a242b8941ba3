"""``cir-pipeline doctor``: what is told, and the exit code, for copies spoilt in each way."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from cir_core.datasets import registry
from cir_core.datasets.about import Counts
from cir_core.datasets.fashion_iq import FashionIQ
from cir_core.errors import UsageError
from flows.doors.cli.app import app
from tests.support.small_benchmarks import FIQ_CATEGORIES, FIQ_IMAGES, FIQ_QUERIES, Bench, Pair

GALLERY = dict(zip(FIQ_CATEGORIES, (FIQ_IMAGES, FIQ_IMAGES + 1), strict=True))
"""The second category shares an image of the first."""

SMALL = replace(
    registry.DATASETS["fiq"],
    adapter=FashionIQ(categories=FIQ_CATEGORIES),
    about=replace(
        registry.DATASETS["fiq"].about,
        counts={"val": Counts(dict.fromkeys(FIQ_CATEGORIES, FIQ_QUERIES), GALLERY)},
        distinct_images=2 * FIQ_IMAGES,
    ),
)
"""Fashion-IQ as the small benchmark has it, so that a good copy is good."""


@dataclass(frozen=True)
class Told:
    """The findings of ``--json`` by part and check, and the exit code."""

    code: int
    findings: dict[tuple[str, str], dict[str, Any]]

    def state(self, part: str, check: str) -> str:
        return str(self.findings[part, check]["state"])

    def bad(self) -> set[tuple[str, str]]:
        return {key for key, one in self.findings.items() if one["state"] in ("problem", "blocked")}


Doctor = Callable[..., Told]


@pytest.fixture
def root(fiq: Bench, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    shutil.copytree(fiq.root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings around, and no wait for Prefect's import."""
    for name in [*os.environ]:
        if name.startswith(("CIR_", "PREFECT_")):
            monkeypatch.delenv(name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr("tasks.doctor.environment.MAKE_SERVER", "pass")
    monkeypatch.setitem(registry.DATASETS, "fiq", SMALL)


@pytest.fixture
def doctor(pair: Pair, tmp_path: Path) -> Doctor:
    return asked(tmp_path, "--stage1", str(pair.stage1), "--stage2", str(pair.stage2))


def asked(tmp_path: Path, *models: str) -> Doctor:
    def call(*arguments: object) -> Told:
        store = ["--store", str(tmp_path / "store")]
        ended = CliRunner().invoke(app, ["doctor", *models, *store, "--json", *map(str, arguments)])
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
        content = json.loads(ended.stdout)
        assert content["exit_code"] == ended.exit_code
        findings = {(one["part"], one["check"]): one for one in content["findings"]}
        assert len(findings) == len(content["findings"])
        return Told(ended.exit_code, findings)

    return call


def of_fiq(doctor: Doctor, root: Path, *arguments: object) -> Told:
    return doctor("--dataset", "fiq", "--data-root", root, *arguments)


# --- all is well


def test_a_whole_copy_is_fine_and_nothing_is_written(
    doctor: Doctor, root: Path, tmp_path: Path
) -> None:
    told = of_fiq(doctor, root)
    assert told.bad() == set()
    assert told.code == 0
    assert told.findings["images", "different ids"]["found"] == 2 * FIQ_IMAGES
    assert told.findings["val", "dress: queries"]["expected"] == FIQ_QUERIES
    queries = told.findings["val: evaluable", "fiq-union-removed (+ 3 alike): queries"]
    assert (queries["found"], queries["percent"]) == (2 * FIQ_QUERIES, 100.0)
    assert told.findings["store", "disk, MiB: free, needed"]["expected"] >= 2
    assert told.state("val", "images in several categories") == "note"
    assert not (tmp_path / "store").exists()


def test_image_tokens_that_are_to_be_kept_need_room(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of models that are not known yet, 577 tokens of 768 numbers an image."""

    def needed() -> int:
        store = tmp_path / "store"
        options = ["--dataset", "fiq", "--data-root", str(root), "--store", str(store), "--json"]
        findings = json.loads(CliRunner().invoke(app, ["doctor", *options]).stdout)["findings"]
        (disk,) = (one for one in findings if one["check"] == "disk, MiB: free, needed")
        return int(disk["expected"])

    without = needed()
    monkeypatch.setenv("CIR_TOKENS", "cache")
    kept = 2 * FIQ_IMAGES * 577 * 768 * 4 / 2**20
    assert needed() - without == pytest.approx(kept, abs=1)


def test_without_a_dataset_the_environment_alone(doctor: Doctor) -> None:
    told = doctor()
    assert told.code == 0
    assert {part for part, _ in told.findings} == {"environment", "models", "store"}


def test_a_dataset_named_in_the_environment_counts(
    doctor: Doctor, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIR_DATASET", "fiq")
    monkeypatch.setenv("CIR_DATA_ROOT", str(root))
    assert ("images", "usable") in doctor().findings


def test_the_demo_is_drawn_by_the_first_run(doctor: Doctor) -> None:
    told = doctor("--dataset", "demo")
    assert told.code == 0
    assert told.state("demo", "data") == "note"


# --- images


def spoil(root: Path, name: str, content: bytes | None) -> None:
    path = next((root / "images").glob(f"{name}.*"))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "check"),
    [
        (None, "missing"),
        (b"", "empty"),
        (b"<html>404</html>", "unreadable"),
        (b"version https://git-lfs.github.com/spec/v1\n", "unreadable"),
    ],
)
def test_a_bad_image_is_a_problem(
    doctor: Doctor, root: Path, content: bytes | None, check: str
) -> None:
    spoil(root, "dress-03", content)
    told = of_fiq(doctor, root)
    assert told.code == 3
    assert told.findings["images", check]["found"] == 1
    assert "dress-03" in told.findings["images", check]["examples"][0]
    assert told.findings["images", check]["remedy"]
    assert told.findings["images", "usable"]["found"] == 2 * FIQ_IMAGES - 1
    gallery = told.findings["val: evaluable", "fiq-original-kept (+ 3 alike): gallery"]
    assert (gallery["found"], gallery["state"]) == (2 * FIQ_IMAGES, "problem")


def test_a_picture_that_breaks_off_is_found_by_decoding(doctor: Doctor, root: Path) -> None:
    path = root / "images" / "toptee-00.png"
    path.write_bytes(path.read_bytes()[:-60])
    assert of_fiq(doctor, root).code == 0
    told = of_fiq(doctor, root, "--decode")
    assert told.code == 3
    assert told.findings["images", "truncated"]["found"] == 1


def test_an_unlisted_case_is_told_with_the_name_it_should_have(doctor: Doctor, root: Path) -> None:
    (root / "images/dress-03.jpg").rename(root / "images/Dress-03.JPG")
    told = of_fiq(doctor, root)
    assert told.code == 3
    renamed = told.findings["images", "missing ones under another case or extension"]
    assert renamed["examples"] == ["images/Dress-03.JPG for images/dress-03.jpg"]


def test_twins_are_notes(doctor: Doctor, root: Path) -> None:
    shutil.copy(root / "images/dress-03.jpg", root / "images/dress-05.jpg")
    shutil.copy(root / "images/dress-00.png", root / "images/dress-00.jpg")
    told = of_fiq(doctor, root)
    assert told.code == 0
    assert told.findings["images", "groups of the same bytes"]["examples"] == ["dress-03, dress-05"]
    assert told.findings["images", "with two files, the first counts"]["examples"] == [
        "dress-00: images/dress-00.jpg, not images/dress-00.png"
    ]


def test_what_is_no_file_does_not_hang(doctor: Doctor, root: Path) -> None:
    for name in ("dress-03.jpg", "dress-05.jpg", "dress-07.jpg"):
        (root / "images" / name).unlink()
    os.mkfifo(root / "images/dress-03.jpg")
    (root / "images/dress-05.jpg").mkdir()
    (root / "images/dress-07.jpg").symlink_to("/dev/tty")
    told = of_fiq(doctor, root)
    assert told.code == 3
    assert told.findings["images", "unsafe_path"]["found"] == 3


def test_no_image_at_all_takes_a_few_lines(doctor: Doctor, root: Path, pair: Pair) -> None:
    shutil.rmtree(root / "images")
    told = of_fiq(doctor, root)
    assert told.code == 3
    missing = told.findings["images", "missing"]
    assert missing["found"] == 2 * FIQ_IMAGES
    assert len(missing["examples"]) == 5
    ended = CliRunner().invoke(app, ["doctor", "--dataset", "fiq", "--data-root", str(root)])
    assert ended.exit_code == 3
    assert f"and {2 * FIQ_IMAGES - 5} more" in ended.stdout
    assert "what to do: " in ended.stdout
    assert len(ended.stdout.splitlines()) < 140


# --- annotations


def test_other_counts_are_a_problem(doctor: Doctor, root: Path) -> None:
    path = root / "captions/cap.dress.val.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    told = of_fiq(doctor, root)
    assert told.code == 3
    assert told.bad() == {("val", "dress: queries")}


def test_a_target_of_no_gallery_is_a_problem(doctor: Doctor, root: Path) -> None:
    path = root / "captions/cap.dress.val.json"
    entries = json.loads(path.read_text())
    entries[0]["target"] = "toptee-01"
    path.write_text(json.dumps(entries))
    told = of_fiq(doctor, root)
    assert told.code == 3
    assert told.findings["val", "targets not in the gallery"]["examples"] == ["dress-00000"]
    original = told.findings["val: evaluable", "fiq-original-kept (+ 3 alike): queries"]
    union = told.findings["val: evaluable", "fiq-union-kept (+ 3 alike): queries"]
    assert (original["found"], union["found"]) == (2 * FIQ_QUERIES - 1, 2 * FIQ_QUERIES)


@pytest.mark.parametrize("content", [None, "<html>", "{}", '[{"candidate": 3}]'])
def test_an_annotation_file_that_is_none_blocks(
    doctor: Doctor, root: Path, content: str | None
) -> None:
    path = root / "captions/cap.dress.val.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    told = of_fiq(doctor, root)
    assert told.code == 4
    (first, *_) = (one for one in told.findings.values() if one["state"] == "blocked")
    assert "cap.dress.val.json" in "".join(first["examples"])
    assert first["remedy"]


def test_the_other_category_is_still_checked(doctor: Doctor, root: Path) -> None:
    (root / "captions/cap.dress.val.json").unlink()
    told = of_fiq(doctor, root)
    assert told.state("val", "toptee: queries") == "ok"
    assert ("val", "dress: queries") not in told.findings


def test_a_split_that_is_asked_for_must_be_there(doctor: Doctor, root: Path) -> None:
    assert of_fiq(doctor, root).code == 0
    told = of_fiq(doctor, root, "--split", "train")
    assert told.code == 4
    assert told.state("train", "annotation files") == "blocked"


def test_a_split_that_the_dataset_does_not_have_is_refused(doctor: Doctor, root: Path) -> None:
    told = doctor("--dataset", "circo", "--data-root", root, "--split", "train")
    assert told.code == 4
    assert "no training split" in told.findings["train", "annotation files"]["examples"][0]


def test_a_data_root_that_is_none_blocks(doctor: Doctor, tmp_path: Path) -> None:
    told = of_fiq(doctor, tmp_path / "nowhere")
    assert told.code == 4
    assert told.state("data root", str(tmp_path / "nowhere")) == "blocked"


def test_an_empty_data_root_tells_the_layout(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    told = of_fiq(doctor, tmp_path / "empty")
    assert told.code == 4
    assert "image_splits" in told.findings["annotations", "usable splits"]["remedy"]


# --- other commands' mistakes


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataset", "fiq"],
        ["--dataset", "coco", "--data-root", "."],
        ["--dataset", "fiq", "--data-root", ".", "--split", "dev"],
    ],
)
def test_usage_errors_are_those_of_every_command(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, ["doctor", *arguments])
    assert isinstance(ended.exception, UsageError)
    assert ended.stdout == ""


def test_a_model_that_is_none_blocks(doctor: Doctor, tmp_path: Path) -> None:
    told = doctor("--stage1", tmp_path)
    assert told.code == 4
    assert told.state("models", "stage1") == "blocked"


def test_cirr_is_checked_too(cirr: Bench, doctor: Doctor) -> None:
    told = doctor("--dataset", "cirr", "--data-root", cirr.root, "--split", "val")
    assert told.code == 3  # a small copy: its counts are not the published ones
    assert told.bad() == {("val", "cirr: queries"), ("val", "cirr: gallery")}
    assert told.state("val: evaluable", "cirr-removed-subset-scored (+ 1 alike): queries") == "ok"


def test_models_are_those_that_the_run_would_take(tmp_path: Path) -> None:
    doctor = asked(tmp_path)
    folder = tmp_path / "catalogue"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "queries.csv").write_text("reference,text\na.png,is blue\n", encoding="utf-8")
    told = doctor("--dataset", str(folder))
    assert told.state("models", "stage1") == told.state("models", "stage2") == "note"
    (folder / "cir-dataset.toml").write_text('stage1 = "none"\nstage2 = "none"\n')
    told = doctor("--dataset", str(folder))
    assert told.code == 4
    assert told.state("models", "stage1") == told.state("models", "stage2") == "blocked"


def test_own_data_is_one_table_and_its_folder(doctor: Doctor, tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8), "red" if name == "a.png" else "blue").save(folder / name)
    (folder / "c.png").write_bytes(b"<html>not found</html>")
    (folder / "queries.csv").write_text("reference,text\na.png,is blue\n", encoding="utf-8")
    told = doctor("--dataset", str(folder))
    assert told.code == 3
    assert told.findings["val", "own: queries"]["found"] == 1
    assert told.findings["val", "own: gallery"]["found"] == 3
    assert told.findings["images", "usable"]["found"] == 2
