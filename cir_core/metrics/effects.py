"""How large a difference is, beside how sure: wins and losses, and sizes without units."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cir_core.metrics.recall import grouped


class Outcome(NamedTuple):
    """Queries that the first answers better, worse, and as well as the second."""

    wins: int
    losses: int
    ties: int

    @property
    def odds(self) -> float | None:
        """Wins to a loss: McNemar's odds ratio. Infinite without losses, None without either."""
        if self.losses:
            return self.wins / self.losses
        return math.inf if self.wins else None


def outcome_of(differences: Float[np.ndarray, " query"] | Int[np.ndarray, " query"]) -> Outcome:
    """``differences`` are above 0 where the first is better."""
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return Outcome(wins, losses, len(differences) - wins - losses)


def standardised_difference(
    category: Sequence[str], differences: Float[np.ndarray, " query"]
) -> float:
    """Cohen's d_z: the mean difference by the standard deviation of the differences around it, both
    means of the categories' means. 0 where nothing differs, and infinite where all queries differ
    by the same. At least one query."""
    groups = [*grouped(category, differences).values()]
    mean = float(np.mean([group.mean() for group in groups]))
    spread = math.sqrt(float(np.mean([np.mean((group - mean) ** 2) for group in groups])))
    if spread == 0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / spread
