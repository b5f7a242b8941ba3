"""--calibrate: another run's labelled queries choose K, so that a split without labels has one."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from cir_core.conformal import Assurance, threshold
from cir_core.errors import PreflightError, StoreCorrupt, UsageError
from cir_core.protocols import PROTOCOLS
from flows.plan import make_plan
from flows.run import Run
from flows.views.runs import print_run, run_summary
from storage.catalog import query
from tasks.results.latex_table import latex_table
from tasks.results.record.numbers import schema_text
from tests.support.small_benchmarks import Bench, Finished, Pair, write_circo

ANNOTATIONS = "annotations/{}.json"
GALLERY = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
ASKED: dict[str, Any] = {"split": "test", "k": "auto", "coverage": 0.5}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)


def rows(run: Run, sql: str) -> list[tuple[Any, ...]]:
    return query(run.catalog, sql.replace("MINE", f"run_id = '{run.run_id}'"))[1]


@pytest.fixture(scope="module")
def labelled(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """CIRCO's validation queries, in a store of their own. The test queries have no labels, and are
    others of the same gallery; their ids are some of the same."""
    root = tmp_path_factory.mktemp("circo")
    write_circo(root)
    queries = json.loads((root / ANNOTATIONS.format("val")).read_text())
    unlabelled = ("id", "reference_img_id", "relative_caption", "shared_concept")
    others = [{name: one[name] for name in unlabelled} for one in queries[:4]]
    for one in others:
        one["relative_caption"] += ", and longer"
    (root / ANNOTATIONS.format("test")).write_text(json.dumps(others))
    bench = Bench("circo", root, pair)
    store = tmp_path_factory.mktemp("store") / "circo"
    return Finished(bench, store, bench.run(store, until="evaluate", run_name="labelled", k=3))


@pytest.fixture(scope="module")
def silent(labelled: Finished) -> Run:
    return labelled.bench.run(labelled.store, **ASKED, calibrate="labelled")


def test_all_labelled_queries_of_the_other_run_give_the_threshold(
    labelled: Finished, silent: Run
) -> None:
    """Beside gaps that stage 1's own embeddings and the labels have."""
    evaluated = labelled.run.evaluated
    images = evaluated.candidates.encoded.read("embeddings").to_pylist()
    asked = evaluated.candidates.fused.read("queries").to_pylist()
    matrix = np.array([row["embedding"] for row in images], dtype=float)
    place = {row["image_id"]: number for number, row in enumerate(images)}
    labels = {row["query_id"]: row for row in evaluated.ingested.read("queries").to_pylist()}
    gaps = {}
    for row in asked:
        scores = (matrix @ np.array(row["embedding"], dtype=float)).astype(np.float32)
        target = labels[row["query_id"]]["targets"]
        first = target[:1] if evaluated.ingested.protocol.recall_on == "first" else target
        if evaluated.ingested.protocol.removes_reference:
            scores[place[labels[row["query_id"]]["reference_id"]]] = -np.inf
        gaps[row["query_id"]] = float(scores.max() - max(scores[place[one]] for one in first))
    told = dict(rows(silent, "SELECT query_id, gap FROM calibration WHERE MINE"))
    assert told == pytest.approx(gaps, abs=1e-6)
    (found,) = rows(
        silent, "SELECT fold, n, round(threshold, 5), guarantee FROM adaptive_k WHERE MINE"
    )
    reach = threshold(np.array(list(gaps.values())), Assurance(0.5))
    assert reach is not None
    assert found == (
        None, len(gaps), pytest.approx(reach, abs=1e-5), "P(target among candidates) >= 0.5",
    )  # fmt: skip


def test_a_split_without_labels_says_whose_labels_and_what_is_assured(
    labelled: Finished, silent: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    by = labelled.run.run_id
    assert rows(silent, "SELECT k_calibrated_by, k_guarantee FROM runs WHERE MINE") == [
        (by, "P(target among candidates) >= 0.5")
    ]
    print_run(silent, Console(markup=False, highlight=False, width=200))
    told = capsys.readouterr().out
    assert f"for queries like the 7 labelled ones of run {by} that calibrate it" in told
    assert r"K = auto (P(target among candidates) \textgreater{}= 0.5)" in latex_table(
        silent.evaluated
    )
    folder = silent.report.parent
    card = (folder / "run-card.md").read_text(encoding="utf-8")
    assert f"adaptive K, coverage 0.5 asked, calibrated by run {by})" in card
    assert "no guarantee" not in card + silent.report.read_text(encoding="utf-8")
    document = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert [*Draft202012Validator(json.loads(schema_text())).iter_errors(document)] == []
    settings = document["facts"]["settings"]
    assert settings["calibrated_on"].startswith("val, circo-")
    assert "guarantee" not in settings
    mine = rows(silent, "SELECT stage, folder FROM artifacts WHERE MINE ORDER BY stage")
    assert [stage for stage, _ in mine] == sorted(
        ["ingest", "encode", "fuse", "threshold", "retrieve", "rerank", "rank", "evaluate"]
    )
    assert all((labelled.store / path).is_dir() for _, path in mine)
    ingested = dict(mine)["ingest"].rpartition("/")[2]
    assert ingested == silent.evaluated.ingested.fingerprint


def test_it_is_planned(labelled: Finished, silent: Run) -> None:
    asked = {**ASKED, "calibrate": labelled.run.run_id[:6], "coverage": 0.6}
    plan = make_plan(labelled.bench.settings(labelled.store, **asked), started=0.0)
    states = {one.stage: one.state for one in plan.stages}
    assert (states["fuse"], states["threshold"]) == ("done", "to do")
    assert plan.assumed_k is None, "pairs are counted, the embeddings are there"


def test_queries_that_would_calibrate_themselves_have_no_guarantee(labelled: Finished) -> None:
    asked = {**ASKED, "split": "val", "calibrate": "labelled"}
    with pytest.raises(PreflightError, match="not guaranteed here") as refused:
        labelled.bench.run(labelled.store, **asked)
    assert refused.value.item == f"run {labelled.run.run_id} 'labelled'"
    assert refused.value.cause == (
        "queries: 7 calibrate there, 7 of 7 are among them, and would calibrate themselves here"
    )
    assert "--no-guarantee" in refused.value.remedy


def test_what_differs_is_told_with_both_values(labelled: Finished, tmp_path: Path) -> None:
    """A gallery that lacks an image, and the text asked without the shared concept."""
    root = tmp_path / "shorter"
    shutil.copytree(labelled.bench.root, root)
    content = json.loads((root / GALLERY).read_text())
    queries = json.loads((root / ANNOTATIONS.format("test")).read_text())
    references = {one["reference_img_id"] for one in queries}
    spare = next(one for one in content["images"] if one["id"] not in references)
    content["images"].remove(spare)
    (root / GALLERY).write_text(json.dumps(content))
    bench, protocol = replace(labelled.bench, root=root), other_protocol(labelled)
    with pytest.raises(PreflightError, match="not guaranteed here") as refused:
        bench.run(labelled.store, **ASKED, calibrate="labelled", protocol=protocol)
    told = refused.value.cause
    mine = labelled.run.evaluated.setting("protocol")
    assert f"protocol: {mine} there, {protocol} here" in told
    sha256 = labelled.run.evaluated.read("galleries")["sha256"][0].as_py()
    assert f"gallery circo: {sha256[:16]} (12 images) there, " in told
    assert "(11 images) here" in told


def test_without_guarantee_it_goes_on_and_is_marked_everywhere(
    labelled: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {**ASKED, "calibrate": "labelled", "protocol": other_protocol(labelled)}
    run = labelled.bench.run(labelled.store, **asked, no_guarantee=True)
    why = f"no guarantee: run {labelled.run.run_id} differs in protocol"
    assert rows(run, "SELECT guarantee FROM adaptive_k WHERE MINE") == [(why,)]
    assert rows(run, "SELECT k_guarantee FROM runs WHERE MINE") == [(why,)]
    assert {row["guarantee"] for row in run_summary(run)["adaptive_k"]} == {why}
    print_run(run, Console(markup=False, highlight=False, width=200))
    assert f"NOT ASSURED, {why}; " in capsys.readouterr().out
    folder = run.report.parent
    document = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert document["facts"]["settings"]["guarantee"] == "none"
    assert f"The coverage that was asked is not assured: {why}." in document["caveats"]
    assert why in run.report.read_text(encoding="utf-8")
    card = (folder / "run-card.md").read_text(encoding="utf-8")
    assert f"calibrated by run {labelled.run.run_id}, no guarantee)" in card
    assert "--no-guarantee" in document["command"]
    told = " ".join(document["command"])
    assert f"--calibrate {labelled.run.run_id}" in told, "its name may be another's later"


def other_protocol(labelled: Finished) -> str:
    mine = labelled.run.evaluated.ingested.protocol
    return next(
        one.name
        for one in PROTOCOLS.values()
        if one.dataset == "circo" and one.shared_concept != mine.shared_concept
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"k": 5, "coverage": None}, ["--calibrate without -k auto"]),
        ({"calibrate": "nobody"}, ["no run 'nobody'"]),
    ],
)
def test_runs_that_cannot_calibrate_are_refused(
    labelled: Finished, changes: dict[str, Any], told: Sequence[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        labelled.bench.run(labelled.store, **{**ASKED, "calibrate": "labelled", **changes})
    for words in told:
        assert words in str(refused.value)


def test_too_few_labelled_queries_elsewhere_are_told_before_any_picture(labelled: Finished) -> None:
    asked = {**ASKED, "calibrate": "labelled", "coverage": 0.95}
    with pytest.raises(PreflightError, match="7 labelled queries are too few") as refused:
        labelled.bench.run(labelled.store, **asked)
    assert f"they are all that run {labelled.run.run_id} has" in refused.value.cause


@pytest.mark.parametrize("stage", ["retrieve", "fuse"])
def test_a_run_that_is_not_whole_calibrates_nothing_and_is_named(
    labelled: Finished, tmp_path: Path, stage: str
) -> None:
    """It is to be repeated, and not the command that met it; told before anything is made."""
    store, run = tmp_path / "store", labelled.run
    shutil.copytree(labelled.store, store)
    folder = store / "artifacts" / stage / run.artifacts[stage].fingerprint
    if stage == "fuse":
        next(folder.glob("queries*")).write_bytes(b"damaged")
    else:
        shutil.rmtree(folder)
    with pytest.raises(StoreCorrupt, match="the run that calibrates is not whole") as refused:
        labelled.bench.run(store, **{**ASKED, "coverage": 0.45}, calibrate="labelled")
    assert refused.value.item == f"run {run.run_id} 'labelled'"
    assert str(folder) in refused.value.cause
    assert "repeat that run's command" in refused.value.remedy
    fused = len([*(store / "artifacts/fuse").glob("*/manifest.json")])
    assert fused == len([*(labelled.store / "artifacts/fuse").glob("*/manifest.json")])
