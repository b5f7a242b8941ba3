"""What a training leaves."""

from pathlib import Path
from typing import Any

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
        "spent": ledger.spent.line if ledger else None,
        "losses": [line for line in lines if "steps_per_second" in line],
        "validations": [line for line in lines if "validation" in line],
        "stopped": lines[-1].get("stopped") if lines else None,
    }
