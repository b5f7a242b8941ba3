"""What a training tells: mean losses, validations, and after a kill no line twice."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cir_core.training.loop import Progress
from flows.views.trainings import say_training, training_summary
from tasks.training.journal import Journal
from tasks.training.ledger import Ledger, Spent
from tasks.training.scores import Score, Scores

SCORES = Scores(
    {"recall@1": Score(0.25, 0.2, 0.3, 40)}, {"recall@1": Score(-0.05, -0.09, -0.01, 40)}
)


def progress(step: int, steps: int = 1000) -> Progress:
    return Progress(step, steps, None, 0.001, {"loss": float(step), "accuracy": 0.5})


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_per_hundred_steps_and_at_the_end(tmp_path: Path) -> None:
    with Journal(tmp_path, 0, leads=True) as journal:
        for step in range(1, 251):
            journal.step(progress(step, 250))
    told = lines(tmp_path)
    assert [(line["step"], line["of"]) for line in told] == [(100, 250), (200, 250), (250, 250)]
    assert [line["loss"] for line in told] == [50.5, 150.5, 225.5]  # means of 1..100 and so on
    assert told[-1]["eta_seconds"] == 0
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_training_is_summed_up_for_programs(tmp_path: Path) -> None:
    with Journal(tmp_path, 0, leads=True) as journal:
        for step in range(1, 151):
            journal.step(progress(step))
        journal.validation(150, SCORES)
        journal.spent(150, Spent(steps=1.5, peak_memory=7))
        assert training_summary(tmp_path)["stopped"] is None
        journal.stopped(150, "no better selection recall@1 in 3 validations")
    assert training_summary(tmp_path)["spent"] is None  # no ledger
    Ledger("key", 150, 1000, 3, Spent(steps=1.5, peak_memory=7)).write(tmp_path)
    told = training_summary(tmp_path)
    assert told["best"] == str(tmp_path / "best")
    assert (told["step"], told["of"], told["spent"]["seconds"]) == (150, 1000, 1.5)
    assert [line["loss"] for line in told["losses"]] == [50.5]
    assert [line["validation"] for line in told["validations"]] == [{"recall@1": 0.25}]
    assert told["stopped"] == "no better selection recall@1 in 3 validations"


def test_how_a_training_went_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(tmp_path, 0, leads=True) as journal:
        for step in range(1, 101):
            journal.step(progress(step))
    say_training(tmp_path)
    assert capsys.readouterr().err == ""  # one line of losses is no course
    losses = [{"step": 100 * (at + 1), "loss": loss} for at, loss in enumerate((8.0, 4.5, 1.0))]
    scores = [{"step": 300, "validation": {"recall@1": value, "mrr": 0.1}} for value in (0.2, 0.6)]
    told = "".join(json.dumps(line) + "\n" for line in [*losses, *scores])
    (tmp_path / "metrics.jsonl").write_text(told)
    say_training(tmp_path)
    assert capsys.readouterr().err.splitlines() == [
        "loss 8 █▅▁ 1 at step 300",
        "selection recall@1 20.0 ▁█ 60.0 %, best 60.0",
    ]


def test_validations_are_told_beside(tmp_path: Path) -> None:
    with Journal(tmp_path, 0, leads=True) as journal:
        assert journal.validation(70, SCORES) is None
    assert lines(tmp_path) == [
        {
            "step": 70,
            "queries": 40,
            "validation": {"recall@1": 0.25},
            "interval": {"recall@1": [0.2, 0.3]},
            "gain": {"recall@1": -0.05},
        }
    ]


def test_the_gap_between_training_and_selection_is_told_on_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Accuracy is the mean since the last validation, whatever lines were told between."""
    with caplog.at_level(logging.INFO), Journal(tmp_path, 0, leads=True) as journal:
        for step in range(1, 201):
            journal.step(replace(progress(step), losses={"accuracy": float(step > 100)}))
        assert journal.validation(200, SCORES) == 0.5
        journal.step(replace(progress(201), losses={"accuracy": 0.9}))
        assert journal.validation(201, SCORES) == 0.9
    assert lines(tmp_path)[-1]["training_accuracy"] == 0.9
    assert caplog.messages[-1] == (
        "validation of step 201: training accuracy 90.0 %; selection "
        "recall@1 25.0 [20.0, 30.0] (gain -5.0 [-9.0, -1.0]) % of 40 queries"
    )


def test_going_on_takes_back_what_is_done_again(tmp_path: Path) -> None:
    with Journal(tmp_path, 0, leads=True) as journal:
        for step in range(1, 301):
            journal.step(progress(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 310, "los')  # torn by the kill
    with Journal(tmp_path, 150, leads=True) as journal:
        for step in range(151, 301):
            journal.step(progress(step))
    assert [line["step"] for line in lines(tmp_path)] == [100, 200, 300]


def test_only_the_leading_process_writes(tmp_path: Path) -> None:
    with Journal(tmp_path, 0, leads=False) as journal:
        for step in range(1, 201):
            journal.step(progress(step))
        journal.validation(200, SCORES)
    assert list(tmp_path.iterdir()) == []
