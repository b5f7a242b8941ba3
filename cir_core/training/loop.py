"""The one training loop: an objective gives losses, a recipe gives the schedule.

Randomness is a function of (seed, step) alone, so a run continued from step n sees the very
batches, masks and negatives that an uninterrupted run sees.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import Tensor, nn

from cir_core.errors import CirError


class Recipe(BaseModel):
    """What every training run sets; AdamW, linear warm-up, then cosine to zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    warmup: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: PositiveFloat = 1.0
    seed: int = 0


class Diverged(CirError):
    """The loss or its gradient is no longer a finite number."""

    exit_code = 9


class Objective(Protocol):
    """A model in training and the loss of one step."""

    @property
    def trained(self) -> nn.Module:
        """The module whose parameters that require gradients are updated."""
        ...

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        """Scalars by name; ``loss`` is minimised, the others are told only."""
        ...


@dataclass(frozen=True)
class Progress:
    """After step ``step`` (1-based) of ``steps``: what the losses were."""

    step: int
    steps: int
    learning_rate: float
    losses: dict[str, float]


def optimiser(objective: Objective, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; biases, norms and other vectors are not decayed."""
    parameters = [p for p in objective.trained.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=recipe.betas,
    )


def learning_rate(recipe: Recipe, step: int) -> float:
    """Rate of the 0-based step: linear over ``warmup`` steps, then cosine down to zero."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def fit(
    objective: Objective, recipe: Recipe, adam: torch.optim.AdamW, *, first_step: int = 0
) -> Iterator[Progress]:
    """Run the remaining steps, yielding after each; stop early by closing the iterator.

    Raises Diverged before a non-finite loss or gradient touches the weights.
    """
    parameters: list[Any] = [p for group in adam.param_groups for p in group["params"]]
    objective.trained.train()
    for step in range(first_step, recipe.steps):
        rate = learning_rate(recipe, step)
        for group in adam.param_groups:
            group["lr"] = rate
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout only
        losses = objective.losses(np.random.default_rng((recipe.seed, step)), step)
        _require_finite(losses["loss"], "loss", step)
        adam.zero_grad(set_to_none=True)
        torch.autograd.backward(losses["loss"])
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
        _require_finite(norm, "gradient", step)
        adam.step()
        told = {name: float(value.detach()) for name, value in losses.items()}
        yield Progress(step + 1, recipe.steps, rate, told)


def _require_finite(value: Tensor, what: str, step: int) -> None:
    if not torch.isfinite(value):
        raise Diverged(
            f"training diverged: the {what} of step {step + 1} is {value.item()}",
            cause="a learning rate that is too high, or broken input",
            remedy="lower the learning rate; the last checkpoint is intact",
        )


def epoch_rows(
    total: int, batch: int, seed: int, step: int, *, group: int = 1
) -> NDArray[np.int64]:
    """Rows of the step's batch: a fresh permutation each epoch, the ragged rest left out.

    ``group`` consecutive rows stay together (it should divide ``batch``).
    """
    per_epoch = max(1, total // batch)
    epoch, position = divmod(step, per_epoch)
    groups = np.random.default_rng((seed, 1, epoch)).permutation(-(-total // group))
    order = (groups[:, None] * group + np.arange(group)).ravel()
    order = order[order < total]
    return order[position * batch : (position + 1) * batch]
