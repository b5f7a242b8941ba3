"""The one training loop: an objective gives losses, a recipe gives the schedule.

Randomness is a function of (seed, step) alone, so a run continued from step n sees the very
batches, masks and negatives that an uninterrupted run sees.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cir_core.errors import CirError, PreflightError
from cir_core.memory import is_out_of_memory
from cir_core.training.batches import steps_per_epoch
from cir_core.training.gradients import Batch, Compute, Objective, accumulate
from cir_core.training.recipes import Recipe


class Diverged(CirError):
    """The loss or its gradient is no longer a finite number."""

    exit_code = 9


@dataclass(frozen=True)
class Progress:
    """After step ``step`` (1-based) of ``steps``: what the losses were. ``epoch`` counts the
    finished epochs when this step ends one, and is None within one."""

    step: int
    steps: int
    epoch: int | None
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


def total_steps(recipe: Recipe, examples: int) -> int:
    """Steps of the whole training; at least one."""
    return max(1, math.floor(recipe.epochs * steps_per_epoch(examples, recipe.batch)))


def learning_rate(recipe: Recipe, step: int, examples: int) -> float:
    """Rate of the 0-based step: linear over ``warmup`` steps, then a cosine down to zero, which
    falls with every step or with every epoch (counted from the first)."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    if recipe.schedule == "epoch":
        done = step // steps_per_epoch(examples, recipe.batch) / recipe.epochs
    else:
        steps = total_steps(recipe, examples)
        done = (step - recipe.warmup) / max(1, steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def fit(
    objective: Objective,
    recipe: Recipe,
    adam: torch.optim.AdamW,
    compute: Compute,
    *,
    first_step: int = 0,
) -> Iterator[Progress]:
    """Run the remaining steps, yielding after each; stop early by closing the iterator.

    Out of memory, a step is tried again with half as many rows at a time. Raises Diverged before
    a non-finite loss or gradient touches the weights, PreflightError for fewer than two examples.
    """
    examples = len(objective)
    _require_examples(examples)
    parameters: list[nn.Parameter] = [p for group in adam.param_groups for p in group["params"]]
    per_epoch, steps = steps_per_epoch(examples, recipe.batch), total_steps(recipe, examples)
    for step in range(first_step, steps):
        rate = learning_rate(recipe, step, examples)
        for group in adam.param_groups:
            group["lr"] = rate
        objective.trained.train()
        batch = objective.draw(np.random.default_rng((recipe.seed, step)), step)
        losses = _gradient(
            objective, batch, adam, parameters, compute, seed=recipe.seed * 1_000_003 + step
        )
        _require_finite(losses["loss"], "loss", step)
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip or math.inf)
        _require_finite(float(norm), "gradient", step)
        adam.step()
        done = step + 1
        epoch = done // per_epoch if done % per_epoch == 0 else None
        yield Progress(done, steps, epoch, rate, losses)


def _gradient(
    objective: Objective,
    batch: Batch,
    adam: torch.optim.AdamW,
    parameters: list[nn.Parameter],
    compute: Compute,
    *,
    seed: int,
) -> dict[str, float]:
    while True:
        adam.zero_grad(set_to_none=True)
        try:
            return accumulate(objective, batch, parameters, compute, seed=seed)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            compute.halve(len(batch))
        torch.cuda.empty_cache()  # outside of except: the failed step's tensors are free by now


def _require_examples(examples: int) -> None:
    if examples < 2:  # noqa: PLR2004 - one example has no negative
        raise PreflightError(
            f"there is nothing to learn from {examples} training examples",
            cause="a query needs the others of its batch as negatives",
            remedy="check the data root and the training split's annotation files",
        )


def _require_finite(value: float, what: str, step: int) -> None:
    if not math.isfinite(value):
        raise Diverged(
            f"training diverged: the {what} of step {step + 1} is {value}",
            cause="a learning rate that is too high, or broken input",
            remedy="lower the learning rate; the best and last checkpoints are intact",
        )
