"""How far below its best score a query's candidates must reach, so that its target is among them
often enough: conformal risk control of one number, on labelled calibration queries.

The *gap* of a query is by how much its target scores lower than its best image. With a threshold t
its candidates are all images whose score is at least the best minus t, so its target is missed, a
loss of 1, where the gap is above t. The loss is bounded by 1 and does not grow with t.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, log, log1p

import numpy as np
from jaxtyping import Float

from cir_core.errors import UsageError

FOLDS = 2

NO_GUARANTEE = "no guarantee"
"""Begins the words of what is not assured."""


@dataclass(frozen=True)
class Assurance:
    """That a query's target is among its candidates, with a probability of ``coverage`` or more.

    Without ``risk``, conformal risk control (Angelopoulos et al., arXiv 2208.02814, theorem 1): the
    probability is that of a query drawn with the n calibration queries, over the draw of all of
    them. It holds for every n and distribution, if the n + 1 queries are exchangeable, as those of
    one gallery, protocol and source are; and is tight to 1 / (n + 1) where no gaps are equal.

    With ``risk``, risk-controlling prediction sets (Bates et al., arXiv 2101.02703, theorem 1) with
    the exact binomial bound of Clopper and Pearson: but for a share ``risk`` of the draws of
    independent, identically distributed calibration queries, the threshold that comes of them
    covers as much of all such queries.

    Raises UsageError for a coverage or a risk that does not lie between 0 and 1.
    """

    coverage: float
    risk: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("coverage", self.coverage), ("risk", self.risk)):
            if value is not None and not 0 < value < 1:
                raise UsageError(
                    f"a {name} of {value:g} cannot be assured",
                    cause="it lies between 0 and 1, both left out",
                    remedy="to keep every image of the gallery, pass -k all",
                )

    def settings(self) -> dict[str, float]:
        """As an artifact's identity records it."""
        return {"coverage": self.coverage, **({} if self.risk is None else {"risk": self.risk})}

    @property
    def misses(self) -> Fraction:
        """The share of queries that may be missed; 1 - 0.95 is 1/20, as it is written."""
        return 1 - Fraction(str(self.coverage))

    @property
    def least_queries(self) -> int:
        """So many calibration queries, none of which is missed, are needed to assure anything less
        than the whole gallery."""
        if self.risk is None:
            return ceil(1 / self.misses) - 1
        return ceil(log(self.risk) / log1p(-float(self.misses)))

    def most_missed(self, n: int) -> int | None:
        """How many of n calibration queries a threshold may miss; None where n are too few.

        Of conformal risk control it is the largest m with (m + 1) / (n + 1) <= 1 - coverage: their
        mean loss m / n, weighed n / (n + 1), and 1 / (n + 1) for the loss of the query to come. Of
        RCPS it is the largest m of which or less a risk of 1 - coverage gives with a probability of
        ``risk`` at most: the same as an upper bound of the risk that lies at 1 - coverage or below.
        """
        if self.risk is None:
            most = (self.misses * (n + 1)).__floor__() - 1
        else:
            most = int((_binomial_cdf(n, float(self.misses)) <= self.risk).sum()) - 1
        return most if most >= 0 else None

    @property
    def words(self) -> str:
        """What is assured, in symbols."""
        if self.risk is None:
            return f"P(target among candidates) >= {self.coverage:g}"
        return f"P(coverage >= {self.coverage:g}) >= {1 - self.risk:g}"


def threshold(gaps: Float[np.ndarray, " query"], assurance: Assurance) -> float | None:
    """The smallest t that the calibration queries with these gaps assure, 0 or more; infinite where
    too many have no target in the gallery, which is an infinite gap: no number of candidates
    reaches the coverage then. None where the queries are too few.

    Never by looking for the first level that fails, which is none where none does: of gaps in
    order, all but the ``most_missed`` largest are covered.
    """
    most = assurance.most_missed(len(gaps))
    return None if most is None else float(np.sort(gaps)[len(gaps) - 1 - most])


def fold_of(query_id: str) -> int:
    """In which half of the labelled queries one is: by its id alone, so that other queries do not
    move it. Each half is asked with what the other one calibrated: no query calibrates itself."""
    return (
        hashlib.sha256(f"fold of {query_id}".encode("utf-8", "surrogatepass")).digest()[0] % FOLDS
    )


def _binomial_cdf(n: int, share: float) -> Float[np.ndarray, " hits"]:
    """P(at most m of n), for m from 0 to n."""
    hits = np.arange(1, n + 1)
    steps = np.log((n - hits + 1) / hits) + log(share) - log1p(-share)
    return np.exp(n * log1p(-share) + np.r_[0.0, np.cumsum(steps)]).cumsum()
