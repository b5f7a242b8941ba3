"""What a validation says of a checkpoint: metrics with their intervals, and how it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """A mean over ``n`` queries and its 95 % interval, all fractions."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """In %, with the interval."""
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Scores:
    """Metrics by name: ``recall@10``, ``mrr`` and so on. ``gains`` are those of re-ranking, paired
    query by query; a stage 1 has none."""

    metrics: Mapping[str, Score]
    gains: Mapping[str, Score] = field(default_factory=dict)

    @property
    def queries(self) -> int:
        """How many queries were asked; 0 where nothing was measured."""
        return max((score.n for score in self.metrics.values()), default=0)

    @property
    def values(self) -> dict[str, float]:
        return {name: score.value for name, score in self.metrics.items()}

    def recalls(self) -> str:
        """Recall at every k, and the gain of re-ranking, on one line in %."""
        told = ", ".join(
            f"{name} {score}" + (f" (gain {self.gains[name]})" if name in self.gains else "")
            for name, score in self.metrics.items()
            if name.startswith("recall")
        )
        return f"{told} % of {self.queries} queries"


FAR = 0.3
"""Of accuracy over recall@1. The demo's pair ends with a distance of 0.04; a training that had
learned its 13,600 queries by heart, with 0.86."""


def gap_warnings(
    scores: Scores, by: str, *, best: float, accuracy: float | None, compares: bool
) -> list[str]:
    """What a reader should know who looks at the training's losses alone. ``best`` is the highest
    score of the name ``by`` before this one; ``compares``: the training's accuracy is over
    candidates that are as hard as stage 1's, so that it may stand beside recall@1."""
    told = []
    now, gain = scores.metrics[by], scores.gains.get(by)
    if now.high < best:
        told.append(
            f"selection {by} has fallen from {100 * best:.1f} to {100 * now.value:.1f} %: training "
            "goes on learning its own queries, and forgets the others"
        )
    if gain is not None and gain.high < 0:
        told.append(f"re-ranking loses {by}: {gain} points against stage 1")
    first = scores.metrics.get("recall@1")
    if compares and first is not None and accuracy is not None and accuracy - first.value > FAR:
        told.append(
            f"training accuracy is {100 * accuracy:.1f} % and selection recall@1 {first} %: what "
            "is learned does not hold for unseen groups"
        )
    return told
