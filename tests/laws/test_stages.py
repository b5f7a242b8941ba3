"""What every declared stage promises to those who make, plan and trace it."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from flows.about import settings_of
from flows.engines.engine import InProcess
from flows.graph import STAGES, Declared, Graph, fit_of, graph_of, name_of
from flows.inputs import resolve_inputs
from flows.run import check_models, ingest_split
from flows.settings import Settings
from storage.view import View
from tasks.machine import Machine
from tasks.planning.standing import standing_of
from tasks.shards import place_of
from tasks.stages.fit import Fit
from tasks.stages.ingest import Ingest
from tasks.stages.rerank import PICTURE
from tasks.stages.retrieve_within import RetrieveWithin
from tasks.stages.stage import Stage, make, make_here
from tasks.stages.threshold import Threshold
from tasks.stages.tokens import Tokens
from tests.support.handed_over import HANDED_OVER, hand_over
from tests.support.small_benchmarks import Bench, Finished

NAMES = [name_of(stage) for stage in STAGES if issubclass(stage, Stage)]
ADAPTIVE: Sequence[type[Stage[Any]]] = (Threshold, RetrieveWithin)
EVERY: Sequence[Declared] = (*STAGES, *HANDED_OVER, *ADAPTIVE, Fit)
MADE = [kind for kind in EVERY if issubclass(kind, Stage) and kind not in (Ingest, Tokens)]
MACHINE = Machine(batch=5)

OTHER: dict[str, dict[str, Any]] = {
    "split": {"split": "train"},
    "categories": {"categories": ("dress",)},
    "protocol": {"protocol": "fiq-union-kept"},
    "k": {"k": 2},
    "coverage": {"k": "auto", "coverage": 0.4},
    "risk": {"k": "auto", "coverage": 0.3, "risk": 0.4},
    "index": {"index": "flat"},
    "nlist": {"index": "ivf", "nlist": 1},
    "nprobe": {"index": "ivf", "nprobe": 1},
    "precision": {"precision": "bf16"},
    "encoder_precision": {"encoder_precision": "bf16"},
    "stage1_precision": {"stage1_precision": "bf16"},
    "stage2_precision": {"stage2_precision": "bf16"},
    "late_fusion": {"late_fusion": 0.5},
    "late_fusion_scores": {"late_fusion": 0.5, "late_fusion_scores": "raw"},
}
"""Another value of each setting that changes results; what is not in it names files, whose bytes
name the stages."""

FILES = {
    "dataset", "name", "images", "queries", "gallery", "stage1", "stage2", "candidates",
    "embeddings",
}  # fmt: skip


OF_ONE_FAMILY = {"text_weight"}
"""Refused by the models of these tests: tests/flows/test_towers.py."""

OF_ANOTHER_RUN = {"calibrate"}
"""Names a run, whose content names the stages: tests/flows/test_calibrate.py."""


def graph(settings: Settings) -> Graph:
    inputs, engine = resolve_inputs(settings), InProcess()
    models = check_models(inputs, engine).view
    return graph_of(inputs, ingest_split(settings, inputs, engine).ingested, models)


def names(settings: Settings) -> dict[str, str]:
    """The fingerprint of each stage."""
    found = graph(settings)
    ingested = found.filtering.encode.ingested
    return {"ingest": ingested.fingerprint} | {
        stage.name: stage.identity.fingerprint for stage in found.stages
    }


@pytest.fixture
def copy(fiq_run: Finished, tmp_path: Path) -> Path:
    shutil.copytree(fiq_run.store, tmp_path / "store")
    return tmp_path / "store"


# --- names


def test_every_setting_is_tried_here() -> None:
    declared = {one.name for one in settings_of(Settings) if one.about.changes_results}
    assert declared == OTHER.keys() | FILES | OF_ONE_FAMILY | OF_ANOTHER_RUN


@pytest.mark.parametrize("setting", OTHER)
def test_what_changes_results_renames_all_that_it_concerns(
    fiq: Bench, copy: Path, setting: str
) -> None:
    root = copy.parent / "both splits"
    shutil.copytree(fiq.root, root)
    for file in [*root.glob("*/*.val.json")]:
        shutil.copy(file, file.with_name(file.name.replace(".val.", ".train.")))
    index = "ivf" if setting in ("nlist", "nprobe") else "exact"
    before = names(fiq.settings(copy, data_root=root, index=index))
    after = names(fiq.settings(copy, data_root=root, **OTHER[setting]))
    renamed = [name for name in NAMES if before.get(name) != after.get(name)]
    assert renamed, setting
    assert renamed[-1] == "evaluate", "a run is another one"


def knobs(fiq: Bench, folder: Path) -> Iterator[dict[str, Any]]:
    """Another value of each setting that changes no result."""
    root = folder / "moved"
    shutil.copytree(fiq.root, root)
    yield {"data_root": root}
    yield {"store": folder / "another"}
    yield {"allow_missing": 3}
    yield {"batch": 7}
    yield {"workers": 2}
    yield {"processes": 2}
    yield {"devices": "cpu,cpu", "device": "auto"}
    yield {"runner": "dask", "address": "tcp://host:8786"}
    yield {"tokens": "cache"}
    yield {"memory": 2**20}
    yield {"engine": "prefect"}
    yield {"until": "evaluate"}
    yield {"device": "auto"}
    yield {"run_name": "paper"}
    yield {"tags": ("a", "b")}
    yield {"no_guarantee": True}
    yield {"wait": 7200.0}


def test_what_changes_no_result_names_nothing(fiq: Bench, copy: Path, tmp_path: Path) -> None:
    expected = names(fiq.settings(copy))
    tried = set[str]()
    for changes in knobs(fiq, tmp_path):
        tried |= changes.keys()
        assert names(fiq.settings(copy).model_copy(update=changes)) == expected, changes
    assert tried == {one.name for one in settings_of(Settings) if not one.about.changes_results}


# --- parts and work


def find_stage(fiq: Bench, store: Path, kind: type[Stage[Any]]) -> Stage[Any]:
    """Of a run whose first stage is another where the kind is a part of one; it is made."""
    settings = fiq.settings(store, until="analyse")
    if kind in HANDED_OVER:
        setting = HANDED_OVER[kind]
        given = hand_over(graph(settings).filtering, store.parent)
        settings = settings.model_copy(update={setting: given[setting]})
    if kind in ADAPTIVE:
        settings = settings.model_copy(update={"k": "auto", "coverage": 0.5})
    mine = graph(settings)
    fitting = [fit_of(resolve_inputs(settings), mine.filtering.encode.ingested, mine)]
    for stage in (*mine.stages, *(fitting if kind is Fit else [])):
        make(stage, MACHINE, make_here)
        if type(stage) is kind:
            return stage
    raise LookupError(kind)


def contents(view: View) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(view.folder.glob("*.parquet"))}


def order_of(view: View) -> list[str]:
    """The parts as the manifest tells them."""
    return list(json.loads((view.folder / "manifest.json").read_text())["parts"])


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_a_stage_holds_what_it_declares(fiq: Bench, copy: Path, kind: type[Stage[Any]]) -> None:
    stage = find_stage(fiq, copy, kind)
    kinds = [place_of(part.removesuffix(".parquet")).kind for part in contents(stage.made)]
    assert set(kinds) == set(stage.made.holds)
    for part in stage.made.holds:
        assert stage.made.read(part).num_columns
    assert standing_of(stage).is_done
    views = [getattr(stage, field.name) for field in fields(stage)]
    stages = {one.fingerprint: one.stage for one in views if isinstance(one, View)}
    made_of = {role: name for role, name in stage.identity.inputs.items() if name in stages}
    assert made_of == {stages[name]: name for name in made_of.values()}, (
        "under another role it is no source, and what is made of it not made again with it"
    )


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_work_writes_nothing_and_makes_the_same_bytes_again(
    fiq: Bench, copy: Path, kind: type[Stage[Any]]
) -> None:
    stage = find_stage(fiq, copy, kind)
    before, order = contents(stage.made), order_of(stage.made)
    shutil.rmtree(stage.made.folder)
    files = sorted(copy.rglob("*"))
    with stage.open(MACHINE) as work:
        products = list(work(stage.shards()))
    assert sorted(copy.rglob("*")) == files
    assert {f"{one.part}.parquet" for one in products} == before.keys()
    assert standing_of(stage).state == "to do"
    assert make(stage, MACHINE, make_here) == (stage.name,)
    assert contents(stage.made) == before
    assert order_of(stage.made) == order


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_an_interrupted_stage_makes_what_is_missing_alone(
    fiq: Bench, copy: Path, kind: type[Stage[Any]]
) -> None:
    stage = find_stage(fiq, copy, kind)
    before = contents(stage.made)
    (stage.made.folder / next(iter(before))).unlink()
    assert make(stage, MACHINE, make_here) == (stage.name,)
    assert contents(stage.made) == before
    assert make(stage, MACHINE, make_here) == ()


# --- weights


def test_a_shard_of_re_ranking_weighs_its_pairs_and_pictures(
    fiq: Bench, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.shards.PICTURES", 10)
    stage = graph(fiq.settings(copy)).rerank
    assert stage is not None
    images = stage.ingested.read("images").to_pylist()
    picture_of = {row["image_id"]: row["sha256"] for row in images}
    pictures = list(dict.fromkeys(picture_of.values()))
    asked = [picture_of[one] for one in stage.candidates.read("candidates")["image_id"].to_pylist()]
    tens = [pictures[start : start + 10] for start in range(0, len(pictures), 10)]
    assert stage.weights(stage.shards()) == [
        sum(asked.count(one) + PICTURE * (one in asked) for one in ten) for ten in tens
    ]
