"""The three trainings, composed, on a few drawn garments: they run, resume, and fit together."""

import json
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cir_core.datasets.registry import find_dataset
from cir_core.datasets.selection import training_queries
from cir_core.errors import (
    AnnotationError,
    CheckpointRefused,
    OutOfSpace,
    ProblemsFound,
    StoreBusy,
    UsageError,
)
from cir_core.training import presets
from cir_core.training.loop import Diverged, Progress
from cir_core.training.stage1 import Stage1Training
from cir_core.types import Query
from flows.engines.engine import InProcess
from flows.judge import Stage1Judge, Stage2Judge
from flows.run import run_pipeline
from flows.settings import Settings
from flows.train import run_training
from flows.training_settings import TrainingSettings, settings_of_data
from storage.catalog import query
from storage.lock import TRAINING, hold
from storage.models.folders import model_sha256
from storage.sources.annotations import AnnotationReader
from tasks.feed.token_cache import TokenCache
from tasks.models.opening import open_stage1
from tasks.training import run as training_run
from tasks.training.journal import Journal
from tasks.training.ledger import Ledger, Spent
from tasks.training.scores import Score, Scores
from tasks.training.triplets import RecomputedTokens
from tests.support.tolerances import rounding, vision_sums
from tests.support.workshop import Workshop, change_recipe


def interrupt_after(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    told = Journal.step

    def interrupting(self: Journal, progress: Progress) -> None:
        told(self, progress)
        if progress.step == step:
            act()

    monkeypatch.setattr(Journal, "step", interrupting)


def trained_images(workshop: Workshop) -> list[Path]:
    """The pictures that a training of the demo may show."""
    root = workshop.folder / "store" / "data" / "demo"
    images = {
        image
        for query in trained_queries(workshop)
        for image in (query.reference_id, *query.targets)
    }
    return [root / "images" / f"{image}.png" for image in sorted(images)]


def trained_queries(workshop: Workshop) -> Sequence[Query]:
    root, demo = workshop.folder / "store" / "data" / "demo", find_dataset("demo")
    read, categories = AnnotationReader(root).read, demo.adapter.categories
    return training_queries(demo.parse("train", categories, read, demo.protocol(None))).queries


def judge_by(monkeypatch: pytest.MonkeyPatch, values: Sequence[float]) -> None:
    """Each validation of a stage 1 finds the next of these."""
    scores = (Scores({"recall@1": Score(one, one - 0.1, one + 0.1, 50)}) for one in values)
    monkeypatch.setattr(Stage1Judge, "__call__", lambda *_: next(scores))


class Killed(BaseException):
    """As sudden as a signal that nobody can catch."""


def kill() -> None:
    raise Killed


def test_the_trained_pair_runs(trained: Workshop) -> None:
    stage1, stage2 = (trained.folder / stage / "best" for stage in ("stage1", "stage2"))
    store = trained.folder / "store"
    run = run_pipeline(
        Settings(store=store, stage1=stage1, stage2=stage2, k=4, device="cpu"), InProcess()
    )
    assert run.report.is_file()
    card = (stage2 / "README.md").read_text()
    for word in ("recall@1", "stage1", "learning_rate", model_sha256(stage2)):
        assert word in card


def test_validation_is_a_run_of_the_pipeline_that_sql_can_ask(trained: Workshop) -> None:
    told = [line for line in trained.journal("stage2") if "validation" in line]
    assert len(told) == 2  # epochs
    _, rows = query(
        trained.folder / "stage2" / "validation" / "cir.duckdb",
        "SELECT DISTINCT value FROM metrics WHERE category = 'average' AND metric = 'recall' "
        "AND stage = 'stage2' AND k = 1",
    )
    assert {line["validation"]["recall@1"] for line in told} == {value for (value,) in rows}
    assert list((trained.folder / "stage2" / "tensorboard").iterdir())


def test_the_best_checkpoint_is_the_one_that_selection_liked_most(
    pretrained: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_by(monkeypatch, [0.5, 0.2])
    pretrained.train("stage1")
    best, last = (pretrained.folder / "stage1" / name / "README.md" for name in ("best", "last"))
    assert "recall@1: 0.5000" in best.read_text()
    assert "recall@1: 0.2000" in last.read_text()
    assert model_sha256(best.parent) != model_sha256(last.parent)


def test_a_training_that_selection_likes_less_and_less_stops_and_says_so(
    pretrained: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed between its two bad validations, it remembers the first; asked again, it does nothing;
    with more patience it goes on to the end."""
    judge_by(monkeypatch, [0.3, 0.5, 0.45, 0.35, 0.6, 0.55])
    patient = {"epochs": 5, "patience": 2}
    with monkeypatch.context() as context:
        change_recipe(context, stage1=patient)
        with monkeypatch.context() as killing:
            interrupt_after(killing, 3 * steps_an_epoch(pretrained) + 1, kill)
            with pytest.raises(Killed):
                pretrained.train("stage1")
        best = pretrained.train("stage1")
        stopped = pretrained.journal("stage1")[-1]
        assert stopped == {
            "step": 4 * steps_an_epoch(pretrained),
            "stopped": "no better selection recall@1 in 2 validations",
        }
        assert "selection recall@1 has fallen from 50.0 to 35.0 %" in caplog.text
        assert "recall@1: 0.5000" in (best / "README.md").read_text()
        for name in ("best", "last"):
            assert "Stopped early" in (best.parent / name / "README.md").read_text()
        written = (best.parent / "state.pt").read_bytes()
        pretrained.train("stage1")
        assert (best.parent / "state.pt").read_bytes() == written
    change_recipe(monkeypatch, stage1=patient | {"patience": None})
    pretrained.train("stage1")
    assert "recall@1: 0.6000" in (best / "README.md").read_text()
    told = [
        line["validation"]["recall@1"]
        for line in pretrained.journal("stage1")
        if "validation" in line
    ]
    assert told == [0.3, 0.5, 0.45, 0.35, 0.6]


def steps_an_epoch(workshop: Workshop) -> int:
    return len(trained_queries(workshop)) // 4  # the batch


def test_the_best_is_measured_in_the_end_on_what_did_not_choose_it(
    pretrained: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        best = pretrained.train("stage1", validate_on="val")
    assert "the best model on val: recall@1" in caplog.text
    assert (
        "On val, which neither trained nor chose it: recall@1" in (best / "README.md").read_text()
    )
    with pytest.raises(UsageError, match="cannot start") as caught:
        pretrained.train("stage1", validate_on="monday.csv")
    assert "monday.csv is no split" in caught.value.cause


@pytest.mark.parametrize("stage", ["pretrain", "stage1", "stage2"])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    trained: Workshop, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    with monkeypatch.context() as context:
        interrupt_after(context, 3, kill)
        with pytest.raises(Killed):
            trained.train(stage, "again")
    assert not (trained.folder / "again" / "last").exists()
    again = trained.train(stage, "again")
    assert model_sha256(again) == model_sha256(trained.folder / stage / "best")
    assert trained.journal("again")[-1]["step"] == trained.journal(stage)[-1]["step"]


def test_ctrl_c_lets_the_step_finish_and_saves(
    pretrained: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "SAVE_SECONDS", 10_000)
    with monkeypatch.context() as context, handling(signal.default_int_handler):
        interrupt_after(context, 2, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            pretrained.train("pretrain", "again")
    state = torch.load(pretrained.folder / "again" / "state.pt", weights_only=True)
    assert state["step"] == 2
    resumed = pretrained.train("pretrain", "again")
    assert model_sha256(resumed) == model_sha256(pretrained.folder / "pretrain" / "best")


def test_what_a_training_cost_is_kept_over_its_runs(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workshop.folder / "pretrain"
    with monkeypatch.context() as context:
        interrupt_after(context, 3, kill)
        with pytest.raises(Killed):
            workshop.train("pretrain")
    begun = Ledger.read(folder)
    assert begun is not None
    assert (begun.step, begun.spent.since, begun.is_done(None)) == (2, 0, False)
    best = workshop.train("pretrain")
    done = Ledger.read(folder)
    assert done is not None
    assert (done.step, done.key, done.is_done(None)) == (done.of, begun.key, True)
    assert done.spent.steps > begun.spent.steps > 0
    assert done.spent.validations > 0
    assert done.spent.peak_memory > 2**20
    assert workshop.journal("pretrain")[-1] == {"step": done.step} | done.spent.line
    assert f"{done.spent.steps:.0f} s of steps" in (best / "README.md").read_text()


def test_a_state_of_a_version_that_kept_no_time_is_gone_on_from(pretrained: Workshop) -> None:
    file = pretrained.folder / "pretrain" / "state.pt"
    state = torch.load(file, weights_only=True)
    del state["spent"]
    torch.save(state, file)
    (file.parent / "training.json").unlink()
    pretrained.train("pretrain")
    assert Ledger.read(file.parent) == Ledger(
        sha256(state["key"].encode()).hexdigest(),
        state["step"],
        state["step"],
        0,
        Spent(since=state["step"]),
        precision="fp32",
    )


@pytest.mark.parametrize("kept", [0, 200])
def test_a_damaged_state_is_told_with_what_to_do(pretrained: Workshop, kept: int) -> None:
    state = pretrained.folder / "pretrain" / "state.pt"
    state.write_bytes(state.read_bytes()[:kept])
    with pytest.raises(CheckpointRefused, match="delete it to start anew"):
        pretrained.train("pretrain")


def test_an_ignored_ctrl_c_stays_ignored(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    with handling(signal.SIG_IGN):
        workshop.train("pretrain")
    state = torch.load(workshop.folder / "pretrain" / "state.pt", weights_only=True)
    assert state["step"] > 2


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Ctrl-C as a terminal, or the background of a shell, has it."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_finished_training_has_nothing_to_do(pretrained: Workshop) -> None:
    model = pretrained.folder / "pretrain" / "best"
    written = (model / "model.safetensors").stat().st_mtime_ns
    assert pretrained.train("pretrain") == model
    assert (model / "model.safetensors").stat().st_mtime_ns == written


def test_image_tokens_are_kept_once_for_both_stages(trained: Workshop) -> None:
    """And in each training's own store, once for all validations."""
    (kept,) = kept_tokens(trained.folder / "store")
    assert finished(kept) < finished(trained.folder / "stage1" / "best" / "model.safetensors")
    assert len(kept_tokens(trained.folder / "stage2" / "validation")) == 1


def kept_tokens(store: Path) -> list[Path]:
    return list((store / "artifacts" / "tokens").glob("*/manifest.json"))


def finished(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_recomputed_features_are_the_kept_ones(
    pretrained: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept in fp32, tokens are those of a fresh pass up to its batch's rounding. Trained weights
    are further apart: Adam's first steps are as long for a gradient that is nearly zero."""
    trained: list[Stage1Training] = []
    make = Stage1Training.__init__

    def remembering(self: Stage1Training, *arguments: Any) -> None:
        make(self, *arguments)
        trained.append(self)

    monkeypatch.setattr(Stage1Training, "__init__", remembering)
    pretrained.train("stage1")
    pretrained.train("stage1", "fresh", features="recompute")
    kept, fresh = (training.triplets for training in trained)
    assert (type(kept.image_tokens), type(fresh.image_tokens)) == (TokenCache, RecomputedTokens)
    rows = torch.cat(kept.galleries).unique()
    atol = rounding(vision_sums(trained[0].model.config.vision), magnitude=4)
    found, expected = fresh.image_tokens[rows], kept.image_tokens[rows]
    assert expected.abs().max() < 4
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert fresh.token_ids == kept.token_ids
    for name in ("reference", "target", "category"):
        assert torch.equal(getattr(fresh, name), getattr(kept, name))


def test_no_room_for_image_tokens_is_told_before_work(
    pretrained: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("storage.store.disk_usage", lambda _: usage)
    with pytest.raises(OutOfSpace) as caught:
        pretrained.train("stage1")
    assert "--features recompute" in caught.value.remedy
    assert "GiB free" in caught.value.cause


def test_a_broken_training_image_stops_or_is_left_out(
    pretrained: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    trained = trained_images(pretrained)
    trained[0].write_bytes(b"<html>not found</html>")
    trained[1].write_bytes(trained[1].read_bytes()[:-60])  # its header is whole
    root = {"data_root": pretrained.folder / "store" / "data" / "demo"}
    with pytest.raises(ProblemsFound) as caught:
        pretrained.train("stage1", data=root)
    assert trained[0].stem in caught.value.item
    with caplog.at_level(logging.WARNING):
        pretrained.train("stage1", data=root | {"allow_missing": 5})
    assert "left out" in caplog.text


def test_a_text_that_is_too_long_stops_or_is_left_out(
    pretrained: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    lengthened = trained_queries(pretrained)[0]
    root = pretrained.folder / "store" / "data" / "demo"
    lengthen(root / "captions" / f"cap.{lengthened.category}.train.json", lengthened)
    tokens = pretrained.folder / "store" / "artifacts" / "tokens"
    data = {"data_root": root}
    with pytest.raises(ProblemsFound) as caught:
        pretrained.train("stage1", data=data)
    assert f"{lengthened.query_id}: text_too_long" in caught.value.item
    assert not tokens.exists()
    with caplog.at_level(logging.INFO):
        pretrained.train("stage1", data=data | {"allow_missing": 1})
    assert "1 training queries are left out: their texts are longer" in caplog.text
    assert f"model reads: {lengthened.query_id}\n" in caplog.text
    assert f"training on {len(trained_queries(pretrained)) - 1} queries" in caplog.text


def lengthen(captions: Path, changed: Query) -> None:
    entries = json.loads(captions.read_text())
    (entry,) = (
        one
        for one in entries
        if (one["candidate"], one["target"]) == (changed.reference_id, changed.targets[0])
    )
    entry["captions"][0] = "red " * 100
    captions.write_text(json.dumps(entries))


def test_a_diverged_training_keeps_its_checkpoints(
    pretrained: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch breaks: the first one's checkpoint is whole and can be used."""
    losses, steps = Stage1Training.losses, count()

    def breaking(self: Stage1Training, *arguments: Any) -> dict[str, Tensor]:
        told = losses(self, *arguments)
        per_epoch = len(self.triplets) // self.recipe.batch
        return told | {"loss": told["loss"] * (1 if next(steps) < per_epoch else torch.nan)}

    monkeypatch.setattr(Stage1Training, "losses", breaking)
    with pytest.raises(Diverged) as caught:
        pretrained.train("stage1")
    assert caught.value.exit_code == 9
    assert "lower the learning rate" in caught.value.remedy
    for name in ("best", "last"):
        open_stage1(pretrained.folder / "stage1" / name)


def test_broken_described_images_are_told_together(pretrained: Workshop) -> None:
    root = pretrained.folder / "store" / "data" / "demo"
    trained = trained_images(pretrained)
    trained[0].unlink()
    trained[3].write_bytes(b"")
    with pytest.raises(ProblemsFound, match="2 of") as caught:
        pretrained.train("pretrain", "again", data={"data_root": root})
    assert f"{trained[0].stem}.jpg: missing" in caught.value.item
    assert f"images/{trained[3].name}: empty" in caught.value.item


def test_a_vocabulary_larger_than_the_model_is_told_with_its_size(
    workshop: Workshop, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('preset = "demo"\n[base.text]\nvocabulary = "bert-base-uncased"\n')
    with pytest.raises(
        UsageError, match="30524 words, and the base model places for 180"
    ) as caught:
        workshop.train("pretrain", recipe=str(recipe))
    assert "vocabulary_size = 30524" in caught.value.remedy


def test_an_image_without_a_catalogue_entry_is_told(pretrained: Workshop) -> None:
    root = pretrained.folder / "store" / "data" / "demo"
    file = root / "descriptions" / "catalogue.train.jsonl"
    lines, lost = file.read_text().splitlines(), trained_images(pretrained)[0].stem
    file.write_text("\n".join(line for line in lines if lost not in line))
    with pytest.raises(AnnotationError, match="1 fault") as caught:
        pretrained.train("pretrain", "again", data={"data_root": root})
    assert caught.value.item == f"'{lost}' is described and has no entry"
    file.unlink()  # a catalogue is optional
    pretrained.train("pretrain", "without", data={"data_root": root})


def test_one_training_at_a_time_writes_into_a_folder(workshop: Workshop) -> None:
    out = workshop.folder / "pretrain"
    busy = "another training holds the training's folder"
    with hold(TRAINING, out), pytest.raises(StoreBusy, match=busy) as refusal:
        workshop.train("pretrain")
    assert refusal.value.item == str(out)
    assert [file.name for file in out.iterdir()] == ["lock"]


def test_a_model_of_another_kind_or_too_few_layers_is_refused(
    trained: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        high = presets.PRESETS["demo"].model_copy(update={"merge_from": 3})
        patch.setitem(presets.PRESETS, "demo", high)
        with pytest.raises(UsageError, match="merge_from is 3, and the base has 2 layers"):
            trained.train("stage2", "high")
    assert not (trained.folder / "high").exists()
    with pytest.raises(CheckpointRefused):
        trained.train("stage1", "other", base=trained.folder / "stage2" / "best")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    settings = TrainingSettings(
        stage="stage2",
        recipe="huge",
        data=Settings(dataset="cirr", device="cuda:1"),
        out=tmp_path / "out",
    )
    with pytest.raises(UsageError) as caught:
        run_training(settings, InProcess())
    for word in ("huge", "cirr", "--data-root", "--base", "--stage1", "CUDA_VISIBLE_DEVICES"):
        assert word in caught.value.cause


OF_OTHER_RUNS: dict[str, Any] = {
    "text_weight": 0.6, "late_fusion": "fit", "candidates": "none.jsonl", "embeddings": "none",
    "until": "retrieve", "index": "ivf", "nlist": 3, "nprobe": 2, "k": "all",
    "late_fusion_scores": "raw", "precision": "tf32",
}  # fmt: skip


def test_what_a_file_sets_for_runs_neither_stops_a_training_nor_judges_it(
    pretrained: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Settings.model_validate({"split": "test", "protocol": "demo-original-removed"})
    hostile = Settings.model_validate(asked.model_dump() | OF_OTHER_RUNS)
    k = {"k": "all"}
    assert settings_of_data(hostile) == asked.model_copy(update=k)
    judged: list[Settings] = []

    def judging(settings: Settings, _: Any) -> Any:
        judged.append(settings)
        raise Killed

    monkeypatch.setattr("flows.judge.run_pipeline", judging)
    with pytest.raises(Killed):
        Stage2Judge(hostile, InProcess())(Path("model"))
    assert judged == [asked.model_copy(update=k | {"stage2": Path("model")})]
    change_recipe(monkeypatch, stage1={"epochs": 1})
    assert pretrained.train("stage1", data=OF_OTHER_RUNS, validate_on="val").is_dir()


def test_what_no_validation_measures_is_told_before_the_first_step(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_recipe(monkeypatch, stage1={"selected_by": "recall@7"})
    with pytest.raises(UsageError, match="selected_by is recall@7, and validation measures recal"):
        workshop.train("stage1")
