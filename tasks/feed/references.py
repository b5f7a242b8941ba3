"""The references of queries, as a reranker's own encoder sees them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tasks.feed.image_tokens import Pictures
from tasks.feed.token_cache import TokenCache


@dataclass(frozen=True)
class KeptReferences:
    """``References`` whose image tokens are kept in the store. ``of_query`` are rows of the
    ``pictures``."""

    tokens: TokenCache
    pictures: Pictures
    of_query: Int[np.ndarray, " query"]

    def states(self, references: Int[np.ndarray, " some"]) -> Float[Tensor, "some token width"]:
        ids = self.pictures.distinct.copies
        for reference in references.tolist():
            problem = self.tokens.problems.get(ids[reference][0])
            if problem is not None:
                raise problem
        return self.tokens[torch.from_numpy(references)]
