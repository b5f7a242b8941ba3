"""Two ways of answering the same queries, compared query by query; each perhaps several times."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cir_core.metrics.recall import grouped
from cir_core.metrics.significance import Interval, gain_interval, mean_interval


@dataclass(frozen=True)
class Answers:
    """Where one way puts the target of each query, 1-based, in runs that differ in their seed."""

    category: Sequence[str]
    ranks: Sequence[Int[np.ndarray, " query"]]

    def hits(self, k: int) -> Float[np.ndarray, " query"]:
        """The share of runs that have each query's target among the first k."""
        return np.mean([ranks <= k for ranks in self.ranks], axis=0)


def recall_interval(answers: Answers, k: int) -> Interval:
    """Recall@k, macro-averaged over categories and averaged over runs, and where it lies for other
    queries. Of one run it is what ``recall_metrics`` says. At least one query."""
    return mean_interval([*grouped(answers.category, answers.hits(k)).values()])


def recall_spread(answers: Answers, k: int) -> float | None:
    """The standard deviation of recall@k from run to run (of a sample); None of a single run."""
    if len(answers.ranks) < 2:  # noqa: PLR2004 - one run has no spread
        return None
    each = [
        np.mean([group.mean() for group in grouped(answers.category, hits.astype(float)).values()])
        for hits in (ranks <= k for ranks in answers.ranks)
    ]
    return float(np.std(each, ddof=1))


def recall_gain(before: Answers, after: Answers, k: int) -> Interval:
    """How much more recall@k ``after`` has, paired query by query: of each query the shares of runs
    are subtracted, so the interval tells of other queries, and not of other seeds. Both are of the
    same queries in the same order; raises ValueError otherwise."""
    if list(before.category) != list(after.category):
        raise ValueError("answers to other queries")
    gained = after.hits(k) - before.hits(k)
    return gain_interval([*grouped(before.category, gained).values()])
