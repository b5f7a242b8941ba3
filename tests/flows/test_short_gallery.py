"""A gallery that is short says so in every output, and every number names what was searched."""

import hashlib
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cir_core.datasets.registry import find_dataset
from flows.run import Run
from flows.views.recall import gallery_rows, print_recall, recall_markdown
from storage.catalog import query
from storage.store import LocalStore
from tasks.stages.ingest import ingest
from tests.support.small_benchmarks import FIQ_CATEGORIES, FIQ_IMAGES, Bench, Finished

LOST, BROKEN = "dress-05", "toptee-00"
"""A file that is gone, and a picture that breaks off: found by ingest, and by encode."""


@dataclass(frozen=True)
class Outputs:
    """All that a run tells."""

    run: Run
    terminal: str
    markdown: str
    numbers: dict[str, Any]
    page: str

    def rows(self, sql: str) -> list[dict[str, Any]]:
        columns, rows = query(self.run.catalog, sql)
        return [dict(zip(columns, row, strict=True)) for row in rows]


def outputs(store: Path, run: Run) -> Outputs:
    told = io.StringIO()
    print_recall(run, Console(file=told, width=200))
    return Outputs(
        run=run,
        terminal=told.getvalue(),
        markdown=recall_markdown(run),
        numbers=json.loads((run.report.parent / "metrics.json").read_text()),
        page=run.report.read_text(),
    )


def test_an_image_with_several_files_says_which_was_taken(
    fiq: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(fiq.root, tmp_path / "data")
    taken = tmp_path / "data" / "images" / "dress-00.jpg"
    shutil.copy(taken.with_suffix(".png"), taken)
    dataset = find_dataset("fiq")
    protocol = dataset.protocols[0].name
    made = ingest(
        LocalStore(tmp_path / "store"), tmp_path / "data", dataset, "val", FIQ_CATEGORIES, protocol
    )
    assert "1 images have several files" in caplog.text
    assert "taken: images/dress-00.jpg, not images/dress-00.png" in caplog.text
    table = made.ingested.read("images").to_pylist()
    assert "images/dress-00.jpg" in {row["path"] for row in table}


@pytest.fixture(scope="module")
def short(fiq: Bench, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    folder = tmp_path_factory.mktemp("short")
    shutil.copytree(fiq.root, folder / "data")
    images = folder / "data" / "images"
    next(images.glob(f"{LOST}.*")).unlink()
    broken = next(images.glob(f"{BROKEN}.*"))
    broken.write_bytes(broken.read_bytes()[:-60])
    bench = replace(fiq, root=folder / "data")
    return outputs(folder / "store", bench.run(folder / "store", allow_missing=2))


def test_the_galleries_tell_what_is_missing(short: Outputs) -> None:
    sql = "SELECT category, images, missing FROM galleries ORDER BY category"
    assert short.rows(sql) == [
        {"category": "dress", "images": FIQ_IMAGES - 1, "missing": 1},
        {"category": "toptee", "images": FIQ_IMAGES, "missing": 1},  # it has one more member
    ]
    (run,) = short.rows("SELECT gallery_images, gallery_missing, problems FROM runs")
    assert (run["gallery_images"], run["gallery_missing"]) == (2 * FIQ_IMAGES - 1, 2)
    assert run["problems"] == short.run.problems >= 2
    unusable = short.rows("SELECT image_id FROM gallery WHERE path IS NULL ORDER BY ALL")
    assert [row["image_id"] for row in unusable] == [LOST, BROKEN]
    assert short.rows("SELECT * FROM integrity_galleries") == []


def test_terminal_markdown_page_and_json_say_so(short: Outputs) -> None:
    for told in (short.terminal, short.markdown):
        assert f"SHORT: {FIQ_IMAGES - 1} of {FIQ_IMAGES} images" in told
        assert f"WARNING: {short.run.problems} images or queries could not be used" in told
    assert f"{short.run.problems} images or queries could not be used" in short.page
    assert f"The gallery is short: 2 of {2 * FIQ_IMAGES + 1} images" in short.page
    assert [row["missing"] for row in short.numbers["galleries"]] == [1, 1]
    assert {LOST, BROKEN} <= {row["item"] for row in short.numbers["problems"]}
    assert short.numbers["run"]["gallery_missing"] == 2


def test_every_number_carries_protocol_size_and_hash(short: Outputs) -> None:
    galleries = {row["category"]: row for row in short.rows("SELECT * FROM galleries")}
    (run,) = short.rows("SELECT * FROM runs")
    whole = {
        "images": run["gallery_images"],
        "missing": run["gallery_missing"],
        "sha256": run["gallery_sha256"],
    }
    for metrics in (short.rows("SELECT * FROM metrics"), short.numbers["metrics"]):
        assert metrics
        for metric in metrics:
            gallery = galleries.get(metric["category"], whole)
            assert metric["protocol"] == "fiq-original-kept"
            assert metric["gallery_images"] == gallery["images"]
            assert metric["gallery_missing"] == gallery["missing"]
            assert metric["gallery_sha256"] == gallery["sha256"]
    for gallery in galleries.values():
        assert gallery["sha256"] in short.page
        assert gallery["sha256"][:16] in short.terminal


def test_a_whole_gallery_is_named_without_a_warning(fiq_run: Finished) -> None:
    whole = outputs(fiq_run.store, fiq_run.run)
    assert f"gallery dress: {FIQ_IMAGES} images" in whole.terminal
    assert "SHORT" not in whole.terminal
    assert "WARNING" not in whole.terminal
    assert "The gallery is short" not in whole.page
    assert "could not be used" not in whole.page
    assert whole.numbers["problems"] == []


def test_the_hash_is_that_of_the_files_on_the_disk(fiq_run: Finished) -> None:
    root = fiq_run.bench.root
    for row in gallery_rows(fiq_run.run):
        names = json.loads((root / f"image_splits/split.{row['category']}.val.json").read_text())
        files = [next((root / "images").glob(f"{name}.*")) for name in names]
        lines = [
            f"{hashlib.sha256(file.read_bytes()).hexdigest()} {name}\n"
            for name, file in zip(names, files, strict=True)
        ]
        assert row["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_another_protocol_searches_another_gallery(fiq_run: Finished, tmp_path: Path) -> None:
    shutil.copytree(fiq_run.store, tmp_path / "store")
    run = fiq_run.bench.run(tmp_path / "store", protocol="fiq-union-kept")
    union = {row["sha256"] for row in run.evaluated.read("galleries").to_pylist()}
    assert union.isdisjoint(row["sha256"] for row in gallery_rows(fiq_run.run))
