"""What the trainings of an ablation are of: one of something else does not count as a row's."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from cir_core.training.presets import Preset
from cir_core.training.recipes import StoredPrecision
from cir_core.types import CaptionRule
from flows.inputs import Inputs
from storage.models.folders import model_sha256
from storage.views import Ingested
from tasks.stages.tokens import tokens_of
from tasks.training.train import Beginning
from tasks.training.triplets import data_digest

_log = logging.getLogger(__name__)


class Contents:
    """The ingested training split of all rows, their base and their stage 1. All are read when the
    first key is asked, the split once for all rows with the same wordings and tokens."""

    def __init__(self, inputs: Inputs, ingested: Ingested, stage1: Path) -> None:
        self._inputs, self._ingested, self._stage1 = inputs, ingested, stage1
        self._data: dict[tuple[Sequence[CaptionRule], StoredPrecision], str] = {}

    @property
    def fingerprint(self) -> str:
        """The name of the training split's content."""
        return self._ingested.fingerprint

    def key(self, preset: Preset, seed: int) -> str:
        """What the ledger of this recipe's stage 2 says. Raises as the training does for data or
        models that cannot be read."""
        recipe = preset.stage2.model_copy(update={"seed": seed})
        data = self._digest(recipe.captions, recipe.tokens)
        return self._beginning.key(preset.merge_from, preset.variant, recipe, data=data)

    @cached_property
    def models(self) -> dict[str, str]:
        """The names of the bytes of ``base`` and ``stage1``. Raises CheckpointRefused."""
        return {"base": model_sha256(self._inputs.stage1), "stage1": model_sha256(self._stage1)}

    @cached_property
    def _beginning(self) -> Beginning:
        return Beginning.read(self._inputs.stage1, self._stage1, self.models)

    def _digest(self, captions: Sequence[CaptionRule], precision: StoredPrecision) -> str:
        if (captions, precision) not in self._data:
            _log.info("reading the training split, to compare it with what was trained on")
            one = self._inputs
            tokens = tokens_of(self._ingested, one.stage1, one.data_root, precision).made
            of = (one.data_root, one.dataset, self._ingested, tokens)
            self._data[captions, precision] = data_digest(*of, self._beginning.stage1, captions)
        return self._data[captions, precision]
