"""Copies of one image, and queries that ask the same, are worked on once and tie exactly."""

import csv
import shutil
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flows.engines.engine import InProcess
from flows.plan import make_plan
from flows.run import Run, run_pipeline
from flows.settings import Settings
from storage.artifacts import Artifact
from storage.catalog import query
from storage.store import LocalStore
from tests.support.small_benchmarks import Bench

COPIES = ("zz/copy.png", "a copy.png", "copy of the reference.png", "torn copy.png")
"""Of the third, the third, the first (a reference), and the last image, which is torn."""

TEXTS = ["is red", "has no sleeves and is a little longer than this", "is red"]


@pytest.fixture(scope="module")
def catalogue(fiq: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies") / "catalogue"
    shutil.copytree(fiq.root / "images", folder)
    images = sorted(folder.iterdir())
    images[-1].write_bytes(images[-1].read_bytes()[:-40])
    for name, original in zip(COPIES, (images[2], images[2], images[0], images[-1]), strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(original, folder / name)
    with (folder / "queries.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["reference", "text"])
        for reference in (images[0].name, images[4].name, COPIES[2]):
            table.writerows([reference, text] for text in TEXTS)
    return folder


def originals_in(catalogue: Path) -> list[str]:
    images = (path.name for path in catalogue.iterdir() if path.suffix in (".png", ".jpg"))
    return sorted(name for name in images if name not in COPIES)


def settings_of(bench: Bench, folder: Path, store: Path, **changes: Any) -> Settings:
    return bench.settings(
        store, dataset="own", data_root=folder, categories=(), k=50, allow_missing=2, **changes
    )


def scores_of(run: Run) -> dict[str, dict[str, tuple[float, float]]]:
    """By query and image, both stages' scores."""
    found: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for row in run.artifacts["rank"].read("rankings").to_pylist():
        found[row["query_id"]][row["image_id"]] = row["stage1_score"], row["stage2_score"]
    return found


@pytest.mark.parametrize(
    ("changes", "before"),
    [
        ({"batch": 1}, None),
        ({"batch": 3}, 3),
        ({"batch": 64}, None),
        ({"batch": 5, "tokens": "cache"}, None),
    ],
)
def test_copies_tie_bit_for_bit_in_both_stages(
    fiq: Bench, catalogue: Path, tmp_path: Path, changes: dict[str, Any], before: int | None
) -> None:
    """So they do where one of them was a candidate of a run ``before``, of so many, and the other
    was not."""
    settings = settings_of(fiq, catalogue, tmp_path, **changes)
    if before is not None:
        few = settings.model_copy(update={"k": before, "until": "rerank"})
        run_pipeline(few, InProcess())
    run = run_pipeline(settings, InProcess())
    originals = originals_in(catalogue)
    for found in scores_of(run).values():
        assert found[COPIES[0]] == found[COPIES[1]] == found[originals[2]]
    rows = query(
        run.catalog,
        "SELECT query_id, position, stage1_rank, rank FROM rankings JOIN gallery USING (image_id) "
        f"WHERE sha256 = (SELECT sha256 FROM gallery WHERE image_id = '{COPIES[0]}') "
        "ORDER BY query_id, position",
    )[1]
    for first, second in pairwise(rows):
        if first[0] == second[0]:  # neighbours, in gallery order
            assert (second[2] - first[2], second[3] - first[3]) == (1, 1)
    told = query(run.catalog, "SELECT item FROM problems WHERE kind = 'truncated'")[1]
    assert run.problems == 2, told


def test_queries_that_ask_the_same_get_the_same(
    fiq: Bench, catalogue: Path, tmp_path: Path
) -> None:
    """Under another id, of the same reference or of its copy."""
    settings = settings_of(fiq, catalogue, tmp_path, batch=2, protocol="own-kept", until="rerank")
    found = scores_of(run_pipeline(settings, InProcess()))
    asked: dict[tuple[bool, str], list[dict[str, tuple[float, float]]]] = defaultdict(list)
    (folder,) = (tmp_path / "artifacts" / "ingest").iterdir()
    first = originals_in(catalogue)[0]
    for row in Artifact(LocalStore(tmp_path), "ingest", folder.name).read("queries").to_pylist():
        of_first = row["reference_id"] in (first, COPIES[2])
        asked[of_first, row["text"]].append(found[row["query_id"]])
    assert sorted(len(results) for results in asked.values()) == [1, 2, 2, 4]
    for results in asked.values():
        assert all(one == results[0] for one in results)


def test_copies_change_no_other_score_and_no_recall(
    fiq: Bench, catalogue: Path, tmp_path: Path
) -> None:
    lone = tmp_path / "lone"
    shutil.copytree(catalogue, lone)
    for name in (COPIES[0], COPIES[1]):
        (lone / name).unlink()
    few, many = (
        scores_of(run_pipeline(settings_of(fiq, folder, store, until="rerank"), InProcess()))
        for folder, store in ((lone, tmp_path / "a"), (catalogue, tmp_path / "b"))
    )
    for asked, scores in few.items():
        assert many[asked].keys() == scores.keys() | {COPIES[0], COPIES[1]}
        for image, both in scores.items():
            assert many[asked][image] == pytest.approx(both, abs=1e-6)


def test_a_plan_counts_what_is_distinct(
    fiq: Bench, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)
    settings = settings_of(fiq, catalogue, tmp_path, protocol="own-kept", until="rerank")
    before = make_plan(settings, started=0.0)
    efforts = {one.stage: one.effort for one in before.stages}
    pictures = len(originals_in(catalogue))
    assert efforts["ingest"].images == pictures + len(COPIES)
    assert efforts["encode"].images == pictures
    assert efforts["fuse"].queries == 9
    run_pipeline(settings, InProcess())
    shutil.rmtree(tmp_path / "artifacts" / "rerank")
    left = {one.stage: one.effort for one in make_plan(settings, started=0.0).stages}["rerank"]
    distinct_questions = 4
    assert left.pairs == distinct_questions * (pictures - 1)
    assert left.images == pictures - 1
