"""An exit from the dual encoder: its first layers, with a linear head of their own.

Early states already tell hopeless candidates from others (early exits: Teerapittayanon et al.,
arXiv 1709.01686; in cascades of rankers: Xin et al., EMNLP 2020 findings, "DeeBERT"). The head is
fitted to the last layer's scores in closed form, and nothing of the model is trained or changed.
What comes of it is a smaller model of the same kind: it is scored, bounded in memory and counted
as any other, and its last layer, too, computes only what its head reads.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from jaxtyping import Float

from cir_core.errors import UsageError
from cir_core.rerankers.dual.model import Stage2Model

RIDGE = 1e-4
"""Of the states' mean variance: enough where pairs are fewer than the states are wide, and nothing
that thousands of pairs would notice."""


@dataclass(frozen=True)
class LinearHead:
    """A score from what a head reads and stage 1's cosine:
    ``weight @ states + bias + prior * cosine``."""

    weight: Float[np.ndarray, " branches_width"]
    bias: float
    prior: float = 0.0


@dataclass
class LeastSquares:
    """Ridge regression of scores on states and stage 1's cosine, whose pairs come block by block:
    of the sums that it needs, in float64. The bias is not held down."""

    width: int
    _sums: Float[np.ndarray, "column column"] = field(init=False)

    def __post_init__(self) -> None:
        """States, the cosine, the score, and ones."""
        self._sums = np.zeros((self.width + 3, self.width + 3))

    def add(
        self,
        states: Float[np.ndarray, "pair branches_width"],
        cosines: Float[np.ndarray, " pair"],
        scores: Float[np.ndarray, " pair"],
    ) -> Self:
        """More pairs; none are fine."""
        columns = [states, cosines, scores, np.ones(len(scores))]
        rows = np.column_stack(columns).astype(np.float64)
        self._sums += rows.T @ rows
        return self

    def head(self, ridge: float = RIDGE) -> LinearHead:
        """The weights with the least mean squared error plus ``ridge``, in units of the states'
        mean variance, times their squares. Raises UsageError where there are no pairs, or all of
        them have the same states."""
        count = max(self._sums[-1, -1], 1.0)
        means = self._sums[-1, :-1] / count
        covariance = self._sums[:-1, :-1] / count - np.outer(means, means)
        variance = covariance.diagonal()[: self.width].mean()
        if not variance > 0:
            raise UsageError(
                "there is nothing to fit an exit on",
                cause=f"{self._sums[-1, -1]:.0f} pairs have no states that differ",
                remedy="fit it on queries with several candidates",
            )
        held = covariance[:-1, :-1] + ridge * variance * np.eye(self.width + 1)
        weight = np.linalg.solve(held, covariance[:-1, -1])
        bias = float(means[-1] - weight @ means[:-1])
        return LinearHead(weight[:-1], bias, float(weight[-1]))


def first_layers(model: Stage2Model, layers: int, head: LinearHead | None = None) -> Stage2Model:
    """An exit after so many layers, with copies of their weights, and the ViT's. Its scores are the
    ``head``'s, and mean nothing without one; its config's ``prior`` is the head's, of any sign.
    Raises UsageError unless it has a layer and leaves one out.

    The head's hidden units are its score and what is below it, so that the model's own head, made
    of two linear layers with a ReLU between them, computes it: x = relu(x) - relu(-x).
    """
    config = model.config
    if not 1 <= layers < config.text.layers:
        raise UsageError(
            f"there is no exit after layer {layers}",
            cause=f"this stage 2 has {config.text.layers} layers, and an exit leaves out one of "
            "them at least",
            remedy=f"pass 1 to {config.text.layers - 1}"
            if config.text.layers > 1
            else "leave out the exit",
        )
    text = config.text.model_copy(update={"layers": layers})
    merge_from = min(layers, config.merge_from)
    changes = {"text": text, "merge_from": merge_from, "prior": head.prior if head else 0.0}
    short = Stage2Model(config.model_copy(update=changes))
    known = model.state_dict()
    short.load_state_dict({name: known[name] for name in short.state_dict()})
    hidden, output = short.score_head.hidden, short.score_head.output
    with torch.no_grad():
        for each in (hidden.weight, hidden.bias, output.weight, output.bias):
            each.zero_()
        if head is not None:
            weight = torch.from_numpy(head.weight).to(hidden.weight)
            for unit, sign in enumerate((1, -1)):
                hidden.weight[unit] = sign * weight
                hidden.bias[unit] = sign * head.bias
                output.weight[0, unit] = sign
    return short.eval().requires_grad_(requires_grad=False)
