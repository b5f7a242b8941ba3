"""The published loop: one query at a time with all of its candidates, nothing shared between pairs.

Kept as the measure of what ``engine`` saves, and of whether it computes the same.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.layers.attention import token_mask
from cir_core.layers.ragged import starts_of
from cir_core.ordering import require_finite
from cir_core.ports import FusedQueries
from cir_core.rerankers.dual.model import Stage2Model


class ReferenceScorer:
    """A ``Scorer`` that runs the model's layers in full: every layer projects every pair's image,
    attends under the text's mask, and computes all positions, though position 0 alone is read."""

    def __init__(self, model: Stage2Model, queries: FusedQueries) -> None:
        self._model, self._queries = model, queries

    def prepare(
        self, states: Float[Tensor, "image patch image_width"]
    ) -> Float[Tensor, "image patch image_width"]:
        return states

    @torch.inference_mode()
    def score(
        self,
        images: Float[Tensor, "image patch image_width"],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> Float[np.ndarray, " pair"]:
        scores = np.empty(len(query_of_pair), dtype=np.float32)
        for query in np.unique(query_of_pair):
            pairs = np.flatnonzero(query_of_pair == query)
            candidates = torch.from_numpy(image_of_pair[pairs]).to(images.device)
            found = self._score_query(int(query), images[candidates])
            scores[pairs] = found.float().cpu().numpy()
        require_finite(scores, "stage 2 scores")
        return scores

    def _score_query(
        self, query: int, candidates: Float[Tensor, "candidate patch image_width"]
    ) -> Float[Tensor, " candidate"]:
        model, queries, count = self._model, self._queries, len(candidates)
        length = int(queries.lengths[query])
        start = int(starts_of(queries.lengths)[query])
        z_t = torch.from_numpy(queries.z_t[start : start + length]).to(candidates)
        token_ids = torch.from_numpy(queries.token_ids[start : start + length])
        beginnings = {"z_t": z_t, "text": model.embeddings(token_ids.to(candidates.device)[None])}
        contexts = {"candidate": candidates, "z_t": z_t.expand(count, -1, -1)}
        if queries.references is not None:
            (reference,) = queries.references.states(queries.references.of_query[[query]])
            contexts["reference"] = reference.to(candidates).expand(count, -1, -1)
        mask = token_mask(torch.full((count,), length, device=candidates.device), length)
        variant = model.config.variant
        branches = tuple(beginnings[one].expand(count, -1, -1) for one in variant.beginnings)
        for layer in model.layers:
            branches = layer.attend_self(branches, mask, slice(None))
            seen = [
                attention.project(contexts[look.at])
                for look, attention in zip(variant.looks, layer.cross_attention, strict=True)
            ]
            branches = layer.attend_others(branches, seen, mask)
        return model.score_head(torch.cat([x[:, 0] for x in branches], dim=-1))
