"""What a training tells: mean losses, validations, and after a kill no line twice."""

import json
from pathlib import Path
from typing import Any

from cir_core.training.loop import Progress
from tasks.journal import Journal


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


def test_validations_are_told_beside(tmp_path: Path) -> None:
    with Journal(tmp_path, 0, leads=True) as journal:
        journal.validation(70, {"recall@1": 0.25})
    assert lines(tmp_path) == [{"step": 70, "validation": {"recall@1": 0.25}}]


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
        journal.validation(200, {"mrr": 1.0})
    assert list(tmp_path.iterdir()) == []
