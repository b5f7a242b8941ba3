"""Scores every planned pair with stage 2, candidate-major."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.models.reranker import CandidateStates, Stage2Model
from cir_core.models.tokenizer import pad_tokens
from cir_core.ordering import require_finite
from cir_core.rerank.plan import plan_blocks

GATHERED_BYTES = 64 * 2**20
"""Keys and values are copied per pair when a block has several candidates. 64 MiB (18 pairs of 577
tokens of width 768) keep these copies small beside the model. A candidate with more pairs than that
has a block of its own, and its keys and values are broadcast without a copy."""

CHUNK = 128
"""Pairs per forward pass: enough to fill matrix products, short enough to sort by text length."""


@dataclass(frozen=True)
class FusedQueries:
    """What stage 2 needs of each query: z_t [length, width] and its token ids."""

    z_t: list[Float[np.ndarray, "token width"]]
    token_ids: list[list[int]]

    def lengths(self) -> Int[np.ndarray, " query"]:
        return np.array([len(ids) for ids in self.token_ids])


@torch.inference_mode()
def score_pairs(
    model: Stage2Model,
    image_tokens: Float[Tensor, "image patch width"],
    queries: FusedQueries,
    query_of_pair: Int[np.ndarray, " pair"],
    image_of_pair: Int[np.ndarray, " pair"],
) -> Float[np.ndarray, " pair"]:
    """One score a pair, in the order given; each independent of what else is in the list.

    The indices refer to ``queries`` and to rows of ``image_tokens``. No pairs, no scores.
    Raises NonFiniteError when a score is NaN or infinite.
    """
    scores = np.empty(len(query_of_pair), dtype=np.float32)
    lengths = queries.lengths()
    for block in plan_blocks(image_of_pair, _pairs_per_block(model, image_tokens)):
        candidates = model.project(image_tokens[torch.from_numpy(block.candidates)])
        # text of similar length together: little padding
        order = np.argsort(lengths[query_of_pair[block.pairs]], kind="stable")
        for start in range(0, len(order), CHUNK):
            chunk = order[start : start + CHUNK]
            pairs = block.pairs[chunk]
            scores[pairs] = _score_chunk(
                model, candidates, queries, query_of_pair[pairs], block.candidate_of_pair[chunk]
            )
    require_finite(scores, "stage 2 scores")
    return scores


def _score_chunk(
    model: Stage2Model,
    candidates: CandidateStates,
    queries: FusedQueries,
    query_of_pair: Int[np.ndarray, " pair"],
    candidate_of_pair: Int[np.ndarray, " pair"],
) -> Float[np.ndarray, " pair"]:
    device = candidates[0][0].keys.device
    distinct, position = np.unique(query_of_pair, return_inverse=True)
    texts = pad_tokens([queries.token_ids[row] for row in distinct])
    z_t = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(queries.z_t[row]) for row in distinct], batch_first=True
    )
    states = model.begin(z_t.to(device), texts.ids.to(device), texts.lengths.to(device))
    scores = model.finish(
        states,
        candidates,
        torch.from_numpy(position).to(device),
        torch.from_numpy(candidate_of_pair).to(device),
    )
    return scores.float().cpu().numpy()


def _pairs_per_block(model: Stage2Model, image_tokens: Tensor) -> int:
    width = model.config.text.width
    bytes_per_pair = 2 * image_tokens.shape[1] * width * image_tokens.element_size()
    return max(1, GATHERED_BYTES // bytes_per_pair)
