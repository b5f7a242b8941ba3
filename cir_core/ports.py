"""What every way of scoring pairs with stage 2 promises."""

from typing import Protocol

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor


class Scorer(Protocol):
    """Stage 2 and some fused queries, ready to score them against images."""

    def score(
        self,
        image_tokens: Float[Tensor, "image patch image_width"],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> Float[np.ndarray, " pair"]:
        """One fp32 score a pair, in the order given; each independent of what else is in the list.

        The indices refer to the scorer's queries and to rows of ``image_tokens``; a pair may occur
        twice. No pairs, no scores. Raises NonFiniteError when a score is NaN or infinite.
        """
        ...
