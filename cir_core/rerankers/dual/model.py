"""Stage 2, candidate re-ranking (section 3.3 of the paper): the dual multi-modal encoder.

Branch 0 starts from z_t, which stands for the reference image; branch 1 from the text. Both
cross-attend to the candidate's image tokens, and in every layer their cross-attention outputs are
merged. What depends on the candidate alone (``project``) is kept apart from what depends on the
query alone (``begin``), so that pairs sharing either share its work.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cir_core.layers.attention import (
    BERT_EPSILON,
    Attention,
    FeedForward,
    KeysValues,
    TextEmbeddings,
    module_list,
    run_layer,
    token_mask,
)
from cir_core.layers.vision import VisionTransformer
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.cost import BRANCHES


class QueryStates(NamedTuple):
    """Both branches of some queries after layer 0's self-attention."""

    branches: tuple[Float[Tensor, "query token width"], Float[Tensor, "query token width"]]
    lengths: Int[Tensor, " query"]


CandidateStates = list[tuple[KeysValues, KeysValues]]
"""Cross-attention keys and values of some candidates: per layer, per branch."""


class DualLayer(nn.Module):
    """One layer of both branches: separate attentions, one merge, one shared feed-forward."""

    def __init__(self, config: Stage2Config, *, linear_merge: bool) -> None:
        super().__init__()
        text, image_width = config.text, config.vision.width

        def attentions(context_width: int) -> Sequence[Attention]:
            return module_list(
                Attention(text.width, text.heads, context_width, text.dropout)
                for _ in range(BRANCHES)
            )

        def norms() -> Sequence[nn.LayerNorm]:
            return module_list(nn.LayerNorm(text.width, eps=BERT_EPSILON) for _ in range(BRANCHES))

        self.self_attention = attentions(text.width)
        self.self_norm = norms()
        self.cross_attention = attentions(image_width)
        self.cross_norm = norms()
        self.merge = nn.Linear(2 * text.width, text.width) if linear_merge else None
        self.feed_forward = FeedForward(text.width, text.feed_forward, text.dropout)
        self.dropout = nn.Dropout(text.dropout)

    def attend_self(
        self,
        branches: tuple[Tensor, Tensor],
        mask: Bool[Tensor, "batch 1 1 token"],
        positions: slice,
    ) -> tuple[Tensor, Tensor]:
        """Self-attention of each branch; only ``positions`` are computed and returned."""
        first, second = (
            norm(
                x[:, positions]
                + self.dropout(attention(x[:, positions], attention.project(x), mask))
            )
            for x, attention, norm in zip(
                branches, self.self_attention, self.self_norm, strict=True
            )
        )
        return first, second

    def attend_candidate(
        self,
        branches: tuple[Tensor, Tensor],
        candidates: tuple[KeysValues, KeysValues],
        candidate_of_pair: Int[Tensor, " pair"],
    ) -> tuple[Tensor, Tensor]:
        """Cross-attention, merge, and the shared feed-forward of each branch."""
        first, second = (
            attention(x, context.select(candidate_of_pair))
            for x, attention, context in zip(
                branches, self.cross_attention, candidates, strict=True
            )
        )
        if self.merge is None:
            merged = (first + second) / 2
        else:
            merged = self.merge(torch.cat([first, second], dim=-1))
        merged = self.dropout(merged)
        first, second = (
            self.feed_forward(norm(x + merged))
            for x, norm in zip(branches, self.cross_norm, strict=True)
        )
        return first, second


class ScoreHead(nn.Module):
    """MLP of both branches' position 0; the published score is the first of its two outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, 2)

    def forward(self, x: Float[Tensor, "pair twice_width"]) -> Float[Tensor, " pair"]:
        logits: Tensor = self.output(functional.relu(self.hidden(x)))
        return logits[:, 0]


class Stage2Model(nn.Module):
    """ViT (the same as stage 1's) and the dual encoder that scores (query, candidate) pairs.

    Training may set ``checkpointing``, which trades time for memory.
    """

    def __init__(self, config: Stage2Config) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        text = config.text
        self.vision = VisionTransformer(config.vision)
        self.embeddings = TextEmbeddings(
            text.vocabulary_size, text.width, text.positions, text.dropout
        )
        self.layers = module_list(
            DualLayer(config, linear_merge=index >= config.merge_from)
            for index in range(text.layers)
        )
        self.score_head = ScoreHead(text.width)

    def begin(
        self,
        z_t: Float[Tensor, "query token width"],
        token_ids: Int[Tensor, "query token"],
        lengths: Int[Tensor, " query"],
    ) -> QueryStates:
        """Layer 0's self-attention, which no candidate can change: once per query.

        z_t and text have the same tokens, so one mask serves both branches.
        """
        mask = token_mask(lengths, token_ids.shape[1])
        branches = self.layers[0].attend_self(
            (z_t, self.embeddings(token_ids)), mask, self._positions(0)
        )
        return QueryStates(branches, lengths)

    def project(
        self, image_tokens: Float[Tensor, "candidate patch image_width"]
    ) -> CandidateStates:
        """Every layer's cross-attention keys and values: once per candidate."""
        projected = []
        for layer in self.layers:
            first, second = (attention.project(image_tokens) for attention in layer.cross_attention)
            projected.append((first, second))
        return projected

    def finish(
        self,
        queries: QueryStates,
        candidates: CandidateStates,
        query_of_pair: Int[Tensor, " pair"],
        candidate_of_pair: Int[Tensor, " pair"],
    ) -> Float[Tensor, " pair"]:
        """Scores of the pairs, without the prior; higher is better, the scale is a logit's."""
        first, second = (x[query_of_pair] for x in queries.branches)
        padded_length = queries.branches[0].shape[1]
        mask = token_mask(queries.lengths[query_of_pair], padded_length)
        for index, (of_first, of_second) in enumerate(candidates):
            layer = self.layers[index]
            if index > 0:
                first, second = layer.attend_self((first, second), mask, self._positions(index))
            first, second = run_layer(
                layer.attend_candidate,
                (first, second),
                (of_first, of_second),
                candidate_of_pair,
                again=self.checkpointing,
            )
        score: Tensor = self.score_head(torch.cat([first[:, 0], second[:, 0]], dim=-1))
        return score

    def forward(
        self,
        z_t: Float[Tensor, "pair token width"],
        token_ids: Int[Tensor, "pair token"],
        lengths: Int[Tensor, " pair"],
        image_tokens: Float[Tensor, "pair patch image_width"],
    ) -> Float[Tensor, " pair"]:
        """Score of query i with candidate i, for all i."""
        each = torch.arange(len(z_t), device=z_t.device)
        return self.finish(
            self.begin(z_t, token_ids, lengths), self.project(image_tokens), each, each
        )

    def _positions(self, index: int) -> slice:
        """The last layer's output is read at position 0 only, so only that is computed."""
        return slice(0, 1) if index == len(self.layers) - 1 else slice(None)
