"""What a training leaves."""

import sys
from pathlib import Path
from typing import Any

from flows.views.sparklines import sparkline, thinned
from flows.views.streams import say
from tasks.training.journal import read_journal
from tasks.training.ledger import Ledger


def training_summary(folder: Path) -> dict[str, Any]:
    """All of a training's folder, for programs: its models, how far it came and what that cost
    (null where an earlier version kept no ledger), its journal's lines by what they tell, and why
    it ended before its recipe did, if it did."""
    ledger, lines = Ledger.read(folder), read_journal(folder)
    return {
        "best": str(folder / "best"),
        "last": str(folder / "last"),
        "step": ledger.step if ledger else None,
        "of": ledger.of if ledger else None,
        "precision": ledger.precision if ledger else None,
        "spent": ledger.spent.line if ledger else None,
        "losses": [line for line in lines if "steps_per_second" in line],
        "validations": [line for line in lines if "validation" in line],
        "stopped": lines[-1].get("stopped") if lines else None,
    }


def say_training(folder: Path) -> None:
    """How its losses and its validations went, as talk; nothing of fewer than two."""
    lines, encoding = read_journal(folder), sys.stderr.encoding
    losses = [line["loss"] for line in lines if "loss" in line]
    if len(losses) > 1:
        bars = sparkline(thinned(losses), encoding=encoding)
        say(f"loss {losses[0]:.3g} {bars} {losses[-1]:.3g} at step {lines[-1]['step']:,}")
    validations = [line["validation"] for line in lines if "validation" in line]
    if len(validations) > 1:
        for name in (name for name in validations[0] if name.startswith("recall")):
            values = [100 * one[name] for one in validations if name in one]
            bars = sparkline(thinned(values), encoding=encoding)
            told = f"{values[0]:.1f} {bars} {values[-1]:.1f} %, best {max(values):.1f}"
            say(f"selection {name} {told}")
