"""What a training is told: every value that changes the weights it ends with."""

import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from cir_core.types import CaptionRule

StoredPrecision = Literal["fp32", "fp16"]
"""In which image tokens and weights are kept on disk; all is computed in fp32 or bf16."""

Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(BaseModel):
    """What every training sets: AdamW, a warm-up of ``warmup`` steps, then a cosine to zero.

    ``epochs`` may be fractional. ``schedule``: the rate changes after every step, or (published)
    after every epoch. ``clip`` bounds the gradient's norm; None leaves it alone. All numbers are
    finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: PositiveFloat
    batch: Annotated[int, Field(ge=2)]
    learning_rate: PositiveFloat
    schedule: Literal["step", "epoch"] = "step"
    warmup: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip: PositiveFloat | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class PretrainRecipe(Recipe):
    """``masked`` is the share of words hidden for the masked-word loss. ``matched`` images of a
    batch take part in matching, which costs three passes of the text encoder an image where the
    other two losses cost one each. ``group`` consecutive images share a batch: where neighbours in
    the file look alike (the demo's families), they are the hard negatives from which contrast and
    matching learn details."""

    masked: Share = 0.4
    matched: PositiveInt = 16
    group: PositiveInt = 1


class FusedRecipe(Recipe):
    """What stages 1 and 2 share. ``captions``: each epoch every query's text is joined by one of
    these rules, drawn at random. ``tokens`` is the precision in which image tokens are kept
    (computed anew, they are fp32). ``k`` candidates a query are re-ranked in validation.
    ``checkpointing`` keeps no activations inside a layer and computes them again on the way back:
    far less memory for a third more time, with the same gradients.

    Every ``validate_every`` epochs, and at the end, the model is run on the selection queries, and
    the checkpoint with the highest ``selected_by`` is kept as the best: ``recall@K`` or ``mrr``.
    After ``patience`` validations without a better one the training stops; None trains to the end,
    and a finished training with a larger one goes on.
    """

    captions: Annotated[tuple[CaptionRule, ...], Field(min_length=1)] = ("published",)
    tokens: StoredPrecision = "fp16"
    k: PositiveInt = 50
    checkpointing: bool = False
    validate_every: PositiveInt = 1
    selected_by: str = "recall@10"
    patience: PositiveInt | None = None

    @field_validator("selected_by")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if not re.fullmatch(r"recall@[1-9]\d*|mrr", value):
            raise ValueError("say recall@1, recall@5, recall@10, recall@50 or mrr")
        return value


class Stage1Recipe(FusedRecipe):
    """``reference_negatives``: the batch's references are negatives beside its other targets, a
    query's own reference included (beyond the paper)."""

    reference_negatives: bool = False


class Stage2Recipe(FusedRecipe):
    """Candidates of a query: its target; with ``in_batch`` the batch's other targets (published);
    with ``reference`` its own reference; ``hard`` of stage 1's first ``hard_from`` of the training
    gallery; and ``random`` images of its category. In every run, but not in the
    loss, ``prior`` times stage 1's logits (cosines over its temperature) is part of a score; 0 is
    the paper's method."""

    in_batch: bool = True
    reference: bool = False
    hard: Annotated[int, Field(ge=0)] = 0
    hard_from: PositiveInt = 100
    random: Annotated[int, Field(ge=0)] = 0
    prior: NonNegativeFloat = 0.0

    def candidates(self) -> int:
        """How many candidates each query is scored with."""
        others = self.batch - 1 if self.in_batch else 0
        return 1 + others + self.reference + self.hard + self.random
