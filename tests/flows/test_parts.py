"""Where much is asked of few pictures, a shard has parts: what a kill loses is bounded, and no
result depends on how it is cut.

Runs end with the order of candidates, which all that follows is made of.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cir_core.rerankers.dual.engine import Launched, RerankEngine
from cir_core.retrievers.blip.fusion import Stage1Model
from flows.engines.engine import InProcess
from flows.run import Run, run_pipeline
from flows.settings import Settings
from storage.artifacts import Artifact
from storage.store import LocalStore
from tasks.shards import place_of
from tests.support.small_benchmarks import FIQ_QUERIES, Bench


@pytest.fixture(scope="module")
def catalogue(fiq: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own data with copies of a reference, of another image, and of a torn one, which is a
    reference too; some queries ask the same."""
    folder = tmp_path_factory.mktemp("parts") / "catalogue"
    shutil.copytree(fiq.root / "images", folder)
    images = sorted(folder.iterdir())
    images[3].write_bytes(images[3].read_bytes()[:-40])
    for row in (0, 2, 3):
        shutil.copy(images[row], folder / f"copy of {images[row].name}")
    asked = [images[0], images[3], images[4], images[0], images[20], images[9]]
    lines = [f"{one.name},is {colour}" for colour in ("red", "blue and long") for one in asked]
    (folder / "queries.csv").write_text("\n".join(["reference,text", *lines]))
    return folder


@pytest.fixture(scope="module", params=["both ways", "copies"])
def chosen(
    request: pytest.FixtureRequest,
    fiq: Bench,
    catalogue: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """Of a benchmark with two texts a query, and of one with copies, problems and kept tokens; of a
    run whose candidates are chosen, and not yet scored. Read only."""
    store, own = tmp_path_factory.mktemp("chosen"), dict[str, Any]()
    if request.param == "copies":
        own = {"dataset": "own", "data_root": catalogue, "categories": (), "k": 50}
        own |= {"allow_missing": 2, "tokens": "cache"}
    settings = fiq.settings(store, batch=3, **own)
    run(settings)
    lose(settings, "rerank", "rank")
    return settings


@pytest.fixture
def settings(chosen: Settings, tmp_path: Path) -> Settings:
    """The same, with a store in which nothing is."""
    return chosen.model_copy(update={"store": tmp_path / "store"})


@pytest.fixture
def unscored(chosen: Settings, settings: Settings) -> Settings:
    """The same, with a copy of its store."""
    shutil.copytree(chosen.store, settings.store)
    return settings


class Killed(Exception):
    """In place of a signal."""


def run(settings: Settings) -> Run:
    return run_pipeline(settings.model_copy(update={"until": "rerank"}), InProcess())


def parts_of(settings: Settings, stage: str) -> dict[str, bytes]:
    files = sorted((settings.store / "artifacts" / stage).glob("*/*.parquet"))
    return {path.stem: path.read_bytes() for path in files}


def rows_of(settings: Settings, stage: str, kind: str) -> list[tuple[Any, ...]]:
    """The rows of all parts, sorted."""
    (folder,) = (settings.store / "artifacts" / stage).iterdir()
    table = Artifact(LocalStore(settings.store), stage, folder.name).read(kind)
    rows = [tuple(map(_hashable, row.values())) for row in table.to_pylist()]
    return sorted(rows, key=repr)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def lose(settings: Settings, *stages: str) -> None:
    for stage in stages:
        shutil.rmtree(settings.store / "artifacts" / stage)


def run_killed_at(
    settings: Settings, number: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends as the process that would commit this one of the parts of its kind is
    killed."""
    write, written = Artifact.write_part, iter(range(1000))

    def deadly(artifact: Artifact, name: str, table: Any) -> None:
        if name.startswith(f"{kind}-") and next(written) == number:
            raise Killed
        write(artifact, name, table)

    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "write_part", deadly)
        with pytest.raises(Killed):
            run(settings)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of stage 1 has fused."""
    fuse, counted = Stage1Model.fuse, list[int]()

    def counting(model: Stage1Model, ids: Any, lengths: Any, tokens: Any) -> Any:
        counted.append(len(ids))
        return fuse(model, ids, lengths, tokens)

    monkeypatch.setattr(Stage1Model, "fuse", counting)
    return counted


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs each call of the engine has scored."""
    launch, counted = RerankEngine.launch, list[int]()

    def counting(engine: RerankEngine, tokens: Any, query: Any, image: Any) -> Launched:
        counted.append(len(query))
        return launch(engine, tokens, query, image)

    monkeypatch.setattr(RerankEngine, "launch", counting)
    return counted


# --- fusing


def test_fusions_do_not_depend_on_how_they_are_cut(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.shards.PICTURES", 20)
    monkeypatch.setattr("tasks.stages.fuse.AT_ONCE", 3)
    run(settings)
    whole, encoded = parts_of(settings, "fuse"), parts_of(settings, "encode")
    queries, ranked = rows_of(settings, "fuse", "queries"), parts_of(settings, "rank")
    lose(settings, "encode", "fuse")
    monkeypatch.setattr("tasks.stages.fuse.PART", 3)
    assert "fuse" in run(settings).made
    cut = parts_of(settings, "fuse")
    assert len(cut) > len(whole)
    assert unfused(cut) == unfused(whole)
    assert rows_of(settings, "fuse", "queries") == queries
    assert parts_of(settings, "encode") == encoded
    assert parts_of(settings, "rank") == ranked


def unfused(parts: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in parts.items() if name.startswith("unfused")}


def test_fusing_goes_on_from_the_parts_that_are_there(
    settings: Settings, fused: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.stages.fuse.PART", 3)
    monkeypatch.setattr("tasks.stages.fuse.AT_ONCE", 2)
    run(settings)
    calm, texts, encoded = parts_of(settings, "fuse"), sum(fused), parts_of(settings, "encode")
    lose(settings, "encode", "fuse")
    fused.clear()
    run_killed_at(settings, 2, "queries", monkeypatch)
    kept = parts_of(settings, "fuse")
    assert kept.items() < calm.items()
    assert len(kept) == 2
    first = sum(fused)
    run(settings)
    assert parts_of(settings, "fuse") == calm
    assert parts_of(settings, "encode") == encoded
    assert sum(fused) - first < texts
    assert sum(fused) <= texts + 2 * (3 + 2 * 2)  # a part, and what is fused together at its ends


def test_a_part_that_is_known_takes_nothing_of_the_next(
    fiq: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first parts are those of the first category, which was fused before."""
    monkeypatch.setattr("tasks.stages.fuse.PART", 2)
    every = fiq.settings(tmp_path / "store", until="encode")
    run_pipeline(every.model_copy(update={"categories": fiq.categories[:1]}), InProcess())
    fused = run_pipeline(every, InProcess()).artifacts["fuse"].folder
    held = list[int]()
    for path in sorted(fused.glob("queries-*.parquet")):
        start = place_of(path.stem).start
        questions = pq.read_table(path)["question"].to_pylist()
        assert questions == [start, start + 1]
        held.extend(questions)
    assert held == [*range(2 * FIQ_QUERIES)]


# --- re-ranking


def test_scores_do_not_depend_on_how_they_are_cut(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.shards.PICTURES", 20)
    monkeypatch.setattr("tasks.stages.shard_scoring.AT_ONCE", 8)
    run(settings)
    whole, ranked = rows_of(settings, "rerank", "scores"), parts_of(settings, "rank")
    assert len(parts_of(settings, "rerank")) == 2
    lose(settings, "rerank")
    monkeypatch.setattr("tasks.stages.rerank.PART", 5)
    monkeypatch.setattr(RerankEngine, "calls_under_way", 2)  # as on a GPU
    assert "rerank" in run(settings).made
    names = parts_of(settings, "rerank")
    assert len(names) > 5
    assert all("-of-" in name for name in names)
    assert rows_of(settings, "rerank", "scores") == whole
    assert parts_of(settings, "rank") == ranked


def test_scoring_goes_on_from_the_parts_that_are_there(
    unscored: Settings, scored: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.stages.rerank.PART", 10)
    monkeypatch.setattr("tasks.stages.shard_scoring.AT_ONCE", 4)
    run(unscored)
    calm, pairs, calls = parts_of(unscored, "rerank"), sum(scored), max(scored)
    assert len(calm) > 5
    lose(unscored, "rerank")
    scored.clear()
    run_killed_at(unscored, 4, "scores", monkeypatch)
    kept = parts_of(unscored, "rerank")
    assert kept.items() < calm.items()
    assert len(kept) == 4
    run(unscored)
    assert parts_of(unscored, "rerank") == calm
    texts = 2 if unscored.dataset == "fiq" else 1
    assert sum(scored) <= pairs + 10 * texts + 2 * calls


def test_scoring_goes_on_beside_what_an_earlier_run_has(
    unscored: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.stages.rerank.PART", 10)
    monkeypatch.setattr("tasks.stages.shard_scoring.AT_ONCE", 4)
    run(unscored.model_copy(update={"k": 3}))
    folder = run(unscored).artifacts["rerank"].folder
    calm = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    shutil.rmtree(folder)
    run_killed_at(unscored, 2, "scores", monkeypatch)
    assert len([*folder.glob("*.parquet")]) == 2
    run(unscored)
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == calm


def test_another_batch_goes_on_with_the_same_parts(
    unscored: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in a part is in its name."""
    monkeypatch.setattr("tasks.stages.rerank.PART", 10)
    run(unscored)
    calm = rows_of(unscored, "rerank", "scores")
    lose(unscored, "rerank")
    run_killed_at(unscored, 3, "scores", monkeypatch)
    run(unscored.model_copy(update={"batch": 7}))
    again = rows_of(unscored, "rerank", "scores")
    assert [row[:2] for row in again] == [row[:2] for row in calm]
    np.testing.assert_allclose(
        [row[2] for row in again], [row[2] for row in calm], atol=1e-5, rtol=0
    )
