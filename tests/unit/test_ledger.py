"""What a training costs: time goes where it belongs, over all its runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cir_core.memory import peak_memory
from tasks.training.ledger import Ledger, Spent, Stopwatch

CPU = torch.device("cpu")


def test_time_goes_where_it_was_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 103.0, 110.0, 111.0, 500.0, 502.0])
    monkeypatch.setattr("tasks.training.ledger.monotonic", lambda: next(clock))
    spent = Spent()
    watch = Stopwatch(spent, CPU)
    watch.steps()
    watch.validations()
    watch.steps()
    assert (spent.steps, spent.validations) == (4.0, 7.0)
    assert 2**20 < spent.peak_memory <= peak_memory(CPU)
    Stopwatch(spent, CPU).steps()  # a later run: what lay between is nobody's
    assert (spent.steps, spent.validations) == (6.0, 7.0)


def test_a_ledger_is_read_as_written_and_damage_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Ledger.read(tmp_path) is None
    written = Ledger("ab", 3, 9, 2, Spent(1.5, 0.25, 2**20, 1), "bf16")
    written.write(tmp_path)
    assert Ledger.read(tmp_path) == written
    file = tmp_path / "training.json"
    file.write_text(file.read_text()[:40])
    assert Ledger.read(tmp_path) is None
    assert "training.json is damaged" in caplog.text


def test_another_precision_than_a_training_was_begun_in_is_told() -> None:
    begun = Ledger("ab", 3, 9, 0, Spent(), "fp32")
    goes_on = replace(begun, precision="bf16")
    told = "was trained in fp32 up to step 3, and is gone on with in bf16"
    assert goes_on.change_since(begun) == told
    for before in (
        None,
        goes_on,
        replace(begun, precision=None),  # an earlier version's
        replace(begun, key="of another"),  # it starts anew
        replace(begun, step=0),
        replace(begun, step=9),
    ):
        assert goes_on.change_since(before) is None


def test_a_training_is_done_with_its_steps_or_with_its_patience() -> None:
    assert Ledger("ab", 9, 9, 0, Spent()).is_done(None)
    assert not Ledger("ab", 8, 9, 3, Spent()).is_done(None)
    assert Ledger("ab", 8, 9, 3, Spent()).is_done(3)
    assert not Ledger("ab", 8, 9, 3, Spent()).is_done(4)
