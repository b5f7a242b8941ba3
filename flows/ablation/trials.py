"""The rows of an ablation as trainings and runs: each with a seed, in a folder named by content."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from cir_core.training.presets import Preset
from flows.ablation.checking import Checked, run_of
from flows.ablation.contents import Contents
from flows.ablation.declaration import Row
from flows.recipes import merged, recipe_text
from flows.settings import Settings
from flows.training_settings import TrainingSettings, settings_of_data
from tasks.training.ledger import Ledger

DIGITS = 12
"""Of a digest in a folder's name."""

SLUG = 40
"""Letters of a row's name in its folder's."""


@dataclass(frozen=True)
class Trial:
    """One row with one seed. ``recipe`` is the text of the recipe that its training reads, and
    ``preset`` what it says; a row that is not trained has no ``training``, and one of stage 1 takes
    the run of another."""

    row: Row
    seed: int | None
    run: Settings
    training: TrainingSettings | None = None
    recipe: str = ""
    preset: Preset | None = None
    contents: Contents | None = None

    @property
    def ledger(self) -> Ledger | None:
        """How far its training is; None where there is none, or it has not begun."""
        return Ledger.read(self.training.out) if self.training else None

    @property
    def is_trained(self) -> bool:
        """Whether there is nothing left to train; the state of the optimiser is not looked at."""
        if self.training is None or self.preset is None:
            return True
        ledger = self.ledger
        has_best = (self.training.out / "best" / "config.json").is_file()
        is_done = ledger is not None and ledger.is_done(self.preset.stage2.patience) and has_best
        return is_done and not self.is_of_another

    @property
    def is_of_another(self) -> bool:
        """Whether a training of another recipe, of other models or data lies in its folder."""
        ledger = self.ledger
        if ledger is None or self.contents is None or self.preset is None or self.seed is None:
            return False
        return ledger.key != self.contents.key(self.preset, self.seed)


def trials_of(checked: Checked, contents: Contents | None) -> list[Trial]:
    """All rows with all seeds, in the table's order; trainings are of these contents. Rows that
    differ in their runs alone share a training."""
    declared = checked.declared
    models = {**contents.models, "data": contents.fingerprint} if contents else {}
    folders: dict[str, Path] = {}
    trials = []
    for row in declared.row:
        if not row.trains:
            trials.append(Trial(row, None, run_of(row, checked.data, checked.stage1, None)))
            continue
        trials += [
            _trained(checked, row, seed, models, folders, contents) for seed in declared.seeds
        ]
    return trials


def _trained(
    checked: Checked,
    row: Row,
    seed: int,
    models: dict[str, str],
    folders: dict[str, Path],
    contents: Contents | None,
) -> Trial:
    preset, base, changes = checked.presets[row.name]
    seeded = merged(changes, {"stage2": {"seed": seed}})
    digest = _digest(preset, seed, checked.declared.precision, models)
    if digest not in folders:
        folders[digest] = _folder(checked.out, row.name, seed, digest)
    out = folders[digest]
    training = TrainingSettings(
        stage="stage2",
        out=out,
        recipe=str(recipe_file(out)),
        data=settings_of_data(checked.data),
        base=checked.declared.base,
        stage1=checked.stage1,
        precision=checked.declared.precision,
    )
    run = run_of(row, checked.data, checked.stage1, out / "best")
    return Trial(row, seed, run, training, recipe_text(base, seeded), preset, contents)


def recipe_file(out: Path) -> Path:
    """Beside a training's folder: the recipe that makes it."""
    return out.with_name(f"{out.name}.toml")


def _folder(out: Path, name: str, seed: int, digest: str) -> Path:
    """One with this content that is there, whatever its row was called then; or a new one."""
    there = [one for one in sorted(out.glob(f"*-{digest}")) if one.is_dir()]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:SLUG].strip("-") or "row"
    return there[0] if there else out / f"{slug}-seed{seed}-{digest}"


def _digest(preset: Preset, seed: int, precision: str, models: dict[str, str]) -> str:
    """Of all that the trained model depends on."""
    content = preset.model_dump(mode="json", include={"weights", "merge_from", "variant", "stage2"})
    content["stage2"]["seed"] = seed
    text = json.dumps(content | models | {"precision": precision}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
