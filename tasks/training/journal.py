"""What a training tells while it runs: a bar or log lines, JSON lines, TensorBoard files."""

import json
import logging
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cir_core.training.loop import Progress
from storage.atomic import commit_text
from tasks.training.ledger import Spent
from tasks.training.scores import Scores

JOURNAL_FILE, BOARD_FOLDER = "metrics.jsonl", "tensorboard"
EVERY = 100
"""Steps whose mean losses make a line."""

SECONDS = 30.0
"""Or as many steps as this takes: full-size ones are slow."""

_log = logging.getLogger(__name__)


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training's folder, in their order; empty where there are none. A line that a
    kill has torn is left out: its step is told again."""
    file, lines = folder / JOURNAL_FILE, []
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
    return lines


class Journal:
    """Lines of mean losses and of validations. Continuing after ``step``, what an interrupted run
    told of later steps is taken back: those steps are made, and told, again."""

    def __init__(self, folder: Path, step: int, *, leads: bool) -> None:
        self._file, self.leads = folder / JOURNAL_FILE, leads
        self._sums: dict[str, float] = {}
        self._accuracies: list[float] = []
        self._count, self._began = 0, time.monotonic()
        if leads:
            self._take_back(step)
            self._board = _board(folder / BOARD_FOLDER, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.leads:
            self._board.close()

    def step(self, progress: Progress) -> None:
        """Note a step; every so many, and at the end, tell their mean."""
        if not self.leads:
            return
        self._count += 1
        if "accuracy" in progress.losses:
            self._accuracies.append(progress.losses["accuracy"])
        for name, value in progress.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        waited = time.monotonic() - self._began > SECONDS
        if progress.step % EVERY == 0 or progress.step == progress.steps or waited:
            self._tell(progress)

    def validation(self, step: int, scores: Scores) -> float | None:
        """Metrics of the checkpoint of this step. Returns the mean accuracy of training since the
        last one, or None where the objective has none or this process was just started."""
        accuracy, self._accuracies = _mean(self._accuracies), []
        if not self.leads or not scores.metrics:
            return accuracy
        line: dict[str, Any] = {"step": step, "queries": scores.queries}
        line |= {"validation": scores.values}
        line |= {"interval": {name: [one.low, one.high] for name, one in scores.metrics.items()}}
        if scores.gains:
            line["gain"] = {name: score.value for name, score in scores.gains.items()}
        if accuracy is not None:
            line["training_accuracy"] = round(accuracy, 4)
        self._write(line)
        for name, value in scores.values.items():
            self._board.add_scalar(f"validation/{name}", value, step)
        self._board.flush()
        told = "" if accuracy is None else f"training accuracy {100 * accuracy:.1f} %; "
        _log.info("validation of step %d: %sselection %s", step, told, scores.recalls())
        self._began = time.monotonic()  # the next rate is of training alone
        self._count, self._sums = 0, {}
        return accuracy

    def spent(self, step: int, spent: Spent) -> None:
        """What the training has cost, all its runs together."""
        if self.leads:
            self._write({"step": step} | spent.line)
            _log.info("step %d: %s", step, spent)

    def stopped(self, step: int, reason: str) -> None:
        """That, and why, the training ends before its recipe does."""
        if self.leads:
            self._write({"step": step, "stopped": reason})
            _log.warning("stopping after step %d: %s", step, reason)

    def _tell(self, progress: Progress) -> None:
        rate = self._count / max(time.monotonic() - self._began, 1e-9)
        means = {name: total / self._count for name, total in self._sums.items()}
        line: dict[str, Any] = {"step": progress.step, "of": progress.steps}
        line |= {name: round(value, 4) for name, value in means.items()}
        line |= {"learning_rate": round(progress.learning_rate, 8)}
        line |= {"steps_per_second": round(rate, 2)}
        line |= {"eta_seconds": round((progress.steps - progress.step) / rate)}
        _log.info("%s", " ".join(f"{name}={value}" for name, value in line.items()))
        self._write(line)
        for name, value in (means | {"learning_rate": progress.learning_rate}).items():
            self._board.add_scalar(f"train/{name}", value, progress.step)
        self._sums, self._count, self._began = {}, 0, time.monotonic()

    def _write(self, line: dict[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _take_back(self, step: int) -> None:
        if self._file.is_file():
            kept = [line for line in read_journal(self._file.parent) if line["step"] <= step]
            commit_text(self._file, "".join(json.dumps(line) + "\n" for line in kept))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _board(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # a second of imports

    return SummaryWriter(str(folder), purge_step=step + 1)
