"""The gradient of one large batch, whatever part of it fits in memory, by any number of processes.

A contrastive loss compares every example with every other: gradients of small batches do not add up
to the large one's, unless the loss is taken over all representations (embeddings, which always fit)
and each part is represented a second time to carry its share of that gradient back (Gao et al.
2021, GradCache). Where a row's loss needs its own representation only, one pass is enough. Several
processes are just more parts, and their gradients are summed; nothing is averaged or dropped.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from cir_core.errors import PreflightError

Splits = Literal["rows", "representations", "never"]
"""How a batch may be cut: the loss is a mean over rows, of all representations, or of one piece."""

LONGEST_WAIT = timedelta(hours=12)
"""For the first process, which validates alone; collectives give up after 10 minutes otherwise."""

_log = logging.getLogger(__name__)


def join_processes(device: str) -> PartialState:
    """This process among those that train together, or alone. Calling it again changes nothing."""
    return PartialState(cpu=device == "cpu", timeout=LONGEST_WAIT)


class Batch(Protocol):
    """The examples of one step."""

    def __len__(self) -> int: ...

    def part(self, rows: slice) -> Self:
        """These rows alone."""


class Objective(Protocol):
    """A model in training. ``trained`` holds the parameters; those that require gradients move."""

    splits: Splits

    @property
    def trained(self) -> nn.Module: ...

    def __len__(self) -> int:
        """Examples in an epoch."""

    def draw(self, rng: np.random.Generator, step: int) -> Any:
        """The batch of a step: a function of the generator and the step alone."""

    def represent(self, batch: Any) -> tuple[Tensor, ...]:
        """What the loss reads of each example, a row each."""

    def losses(self, batch: Any, representations: Any) -> dict[str, Tensor]:
        """Scalars by name, means over the rows; ``loss`` is minimised, the others are told only."""


@dataclass
class Compute:
    """Where and in what precision a training runs, and how many rows fit at a time.

    ``micro_batch`` None is the whole batch. It changes memory and time, and, dropout's draws
    apart, no result.
    """

    accelerator: Accelerator
    micro_batch: int | None = None

    @classmethod
    def on(cls, device: str, *, precision: str = "fp32", micro_batch: int | None = None) -> Self:
        """``device`` cpu or cuda; ``precision`` fp32, or bf16 for autocast matrix products."""
        join_processes(device)
        accelerator = Accelerator(
            cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision
        )
        return cls(accelerator, micro_batch)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def leads(self) -> bool:
        """Whether this process writes and talks."""
        return self.accelerator.is_main_process

    @property
    def precision(self) -> str:
        """Of matrix products: fp32, or bf16."""
        mixed = self.accelerator.mixed_precision
        return "fp32" if mixed == "no" else str(mixed)

    def autocast(self) -> AbstractContextManager[Any]:
        return self.accelerator.autocast()

    def parts(self, rows: int) -> list[slice]:
        """This process's rows of a batch, cut into parts that fit."""
        share = -(-rows // self.accelerator.num_processes)
        first = self.accelerator.process_index * share
        last = min(first + share, rows)
        size = self.micro_batch or share
        return [slice(start, min(start + size, last)) for start in range(first, last, size)]

    def halve(self, rows: int) -> None:
        """Try with half as many rows at a time. Raises PreflightError when one is too many."""
        size = self.micro_batch or rows
        if size == 1 or self.accelerator.num_processes > 1:
            raise PreflightError(
                "the accelerator's memory is too small for this training",
                cause=f"a micro-batch of {size} does not fit",
                remedy="pass a smaller --micro-batch (the result is the same), or set "
                "checkpointing = true in the recipe",
            )
        self.micro_batch = -(-size // 2)
        _log.warning(
            "out of memory: going on with %d rows at a time; the batch stays %d",
            self.micro_batch,
            rows,
        )

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Over all processes; a parameter that no process used keeps none, and is not decayed."""
        if self.accelerator.num_processes == 1:
            return
        used = torch.tensor([p.grad is not None for p in parameters], device=self.device)
        anywhere = self._sum(used.int()).tolist()
        for parameter, users in zip(parameters, anywhere, strict=True):
            if users:
                mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._sum(mine)

    def sum_losses(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.accelerator.num_processes == 1:
            return losses
        return {name: self._sum(value) for name, value in losses.items()}

    def gather(self, mine: Tensor) -> Tensor:
        """The rows of all processes, in the batch's order."""
        if self.accelerator.num_processes == 1:
            return mine
        padded = self.accelerator.pad_across_processes(mine)
        counts = self.accelerator.gather(torch.tensor([len(mine)], device=self.device))
        rows = self.accelerator.gather(padded).split(len(padded))
        return torch.cat([chunk[:count] for chunk, count in zip(rows, counts, strict=True)])

    def any_of(self, mine: bool) -> bool:
        """Whether any process says so."""
        if self.accelerator.num_processes == 1:
            return mine
        return bool(self._sum(torch.tensor(int(mine), device=self.device)))

    def _sum(self, value: Tensor) -> Tensor:
        summed: Tensor = self.accelerator.reduce(value, reduction="sum")
        return summed


def accumulate(
    objective: Objective,
    batch: Batch,
    parameters: Sequence[nn.Parameter],
    compute: Compute,
    *,
    seed: int,
) -> dict[str, float]:
    """Add the batch's gradient to the parameters' ``grad``, and tell its losses.

    ``seed`` fixes dropout, part by part. Raises PreflightError when an objective that cannot be
    split would have to be.
    """
    parts = compute.parts(len(batch))
    if objective.splits == "rows":
        told = _by_rows(objective, batch, parts, compute, seed)
    elif len(parts) == 1 and compute.accelerator.num_processes == 1:
        told = _at_once(objective, batch, compute, seed)
    elif objective.splits == "representations":
        told = _by_representations(objective, batch, parts, compute, seed)
    else:
        raise PreflightError(
            "this training's batch cannot be split",
            cause="its losses compare everything with everything",
            remedy="use one process and no --micro-batch, or a smaller batch",
        )
    compute.sum_gradients(parameters)
    return {name: float(value) for name, value in told.items()}


def _at_once(objective: Objective, batch: Batch, compute: Compute, seed: int) -> dict[str, Tensor]:
    losses = objective.losses(batch, _represent(objective, batch, slice(0, None), compute, seed))
    torch.autograd.backward(losses["loss"])
    return _detached(losses)


def _by_rows(
    objective: Objective, batch: Batch, parts: list[slice], compute: Compute, seed: int
) -> dict[str, Tensor]:
    told: dict[str, Tensor] = {}
    for rows in parts:
        part = batch.part(rows)
        losses = objective.losses(part, _represent(objective, part, rows, compute, seed))
        share = len(part) / len(batch)
        torch.autograd.backward(losses["loss"] * share)
        for name, value in _detached(losses).items():
            told[name] = told.get(name, torch.zeros_like(value)) + value * share
    return compute.sum_losses(told)


def _by_representations(
    objective: Objective, batch: Batch, parts: list[slice], compute: Compute, seed: int
) -> dict[str, Tensor]:
    with torch.no_grad():
        found = [_represent(objective, batch.part(rows), rows, compute, seed) for rows in parts]
    leaves = [
        compute.gather(torch.cat(pieces)).requires_grad_() for pieces in zip(*found, strict=True)
    ]
    losses = objective.losses(batch, tuple(leaves))
    _backward_to(leaves, losses["loss"], keep_parameters=compute.leads)
    for rows in parts:
        pieces = _represent(objective, batch.part(rows), rows, compute, seed)
        carried = [leaf.grad[rows] for leaf in leaves if leaf.grad is not None]
        torch.autograd.backward(pieces, carried)
    return _detached(losses)


def _backward_to(leaves: list[Tensor], loss: Tensor, *, keep_parameters: bool) -> None:
    """Parameters that the loss itself reads (the temperature) get their gradient in one process
    only, since the gradients of all are summed."""
    if keep_parameters:
        torch.autograd.backward(loss)
    else:
        for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            leaf.grad = gradient


def _represent(
    objective: Objective, part: Batch, rows: slice, compute: Compute, seed: int
) -> tuple[Tensor, ...]:
    torch.manual_seed(seed * 65_537 + rows.start)  # dropout: the same on both passes
    with compute.autocast():
        return objective.represent(part)


def _detached(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in losses.items()}
