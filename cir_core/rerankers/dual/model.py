"""Stage 2, candidate re-ranking (section 3.3 of the paper): the dual multi-modal encoder.

Branch 0 starts from z_t, which stands for the reference image; branch 1 from the text. Both
cross-attend to the candidate's image tokens, and in every layer their cross-attention outputs are
merged (``variant``: other branches and looks, by which the paper's choice is judged). What depends
on the candidate alone (``project``) is kept apart from what depends on the query alone
(``begin``), so that pairs sharing either share its work.
"""

from collections.abc import Iterator, Sequence
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
from cir_core.layers.encoders import image_encoder
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.variant import Context

Branches = tuple[Float[Tensor, "batch token width"], ...]

Seen = tuple[KeysValues, ...]
"""Keys and values of what the looks of a layer see, as far as it is known."""


class QueryStates(NamedTuple):
    """The branches of some queries after layer 0's self-attention, which of their tokens are real,
    and, per layer, what the looks at z_t or at the reference see."""

    branches: Branches
    mask: Bool[Tensor, "query 1 1 token"]
    seen: list[Seen]


CandidateStates = list[Seen]
"""Cross-attention keys and values of some candidates: per layer, per look at candidates."""


class DualLayer(nn.Module):
    """One layer of all branches: self-attentions and looks of their own, one merge, one shared
    feed-forward."""

    def __init__(self, config: Stage2Config, *, linear_merge: bool) -> None:
        super().__init__()
        text, branches = config.text, config.variant.beginnings
        self.looks, self.merges = config.variant.looks, config.variant.merges

        def attention(context_width: int) -> Attention:
            return Attention(text.width, text.heads, context_width, text.dropout)

        def norms() -> Sequence[nn.LayerNorm]:
            return module_list(nn.LayerNorm(text.width, eps=BERT_EPSILON) for _ in branches)

        self.self_attention = module_list(attention(text.width) for _ in branches)
        self.self_norm = norms()
        self.cross_attention = module_list(
            attention(text.width if look.at == "z_t" else config.vision.width)
            for look in self.looks
        )
        self.cross_norm = norms()
        self.merge = nn.Linear(2 * text.width, text.width) if linear_merge else None
        self.feed_forward = FeedForward(text.width, text.feed_forward, text.dropout)
        self.dropout = nn.Dropout(text.dropout)

    def project(self, candidates: Float[Tensor, "candidate patch image_width"]) -> Seen:
        """What the looks at candidates see."""
        return tuple(one.project(candidates) for one in self._looking("candidate"))

    def project_query(self, z_t: Tensor | None, references: Tensor | None) -> Seen:
        """What the looks at the query see: none of the paper's does."""
        seen = [one.project(_given(references)) for one in self._looking("reference")]
        return (*seen, *(one.project(_given(z_t)) for one in self._looking("z_t")))

    def _looking(self, at: Context) -> Iterator[Attention]:
        for look, attention in zip(self.looks, self.cross_attention, strict=True):
            if look.at == at:
                yield attention

    def attend_self(
        self, branches: Branches, mask: Bool[Tensor, "batch 1 1 token"], positions: slice
    ) -> Branches:
        """Self-attention of each branch; only ``positions`` are computed and returned."""
        return tuple(
            norm(
                x[:, positions]
                + self.dropout(attention(x[:, positions], attention.project(x), mask))
            )
            for x, attention, norm in zip(
                branches, self.self_attention, self.self_norm, strict=True
            )
        )

    def attend_others(
        self,
        branches: Branches,
        seen: Sequence[KeysValues],
        mask: Bool[Tensor, "batch 1 1 token"],
    ) -> Branches:
        """Looks, merge, and the shared feed-forward of each branch. ``seen`` is what each look
        sees, ``mask`` which tokens of z_t are real."""
        looked = [
            attention(branches[look.branch], context, mask if look.at == "z_t" else None)
            for look, attention, context in zip(self.looks, self.cross_attention, seen, strict=True)
        ]
        return tuple(
            self.feed_forward(norm(x + self.dropout(merged)))
            for x, norm, merged in zip(branches, self.cross_norm, self._merged(looked), strict=True)
        )

    def _merged(self, looked: list[Tensor]) -> list[Tensor]:
        """What is added to each branch."""
        if not self.merges:
            return looked
        if self.merge is None:
            merged = sum(looked[1:], looked[0]) / len(looked)
        else:
            merged = self.merge(torch.cat(looked, dim=-1))
        return [merged] * len(self.self_norm)


def _given(states: Tensor | None) -> Tensor:
    if states is None:
        raise ValueError("this variant reads z_t, or references, and was given none")
    return states


class ScoreHead(nn.Module):
    """MLP of all branches' position 0; the published score is the first of its two outputs."""

    def __init__(self, width: int, branches: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(branches * width, width)
        self.output = nn.Linear(width, 2)

    def forward(self, x: Float[Tensor, "pair branches_width"]) -> Float[Tensor, " pair"]:
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
        text, variant = config.text, config.variant
        self.vision = image_encoder(config.vision)
        self.embeddings = TextEmbeddings(
            text.vocabulary_size, text.width, text.positions, text.dropout
        )
        self.layers = module_list(
            DualLayer(config, linear_merge=variant.merges and index >= config.merge_from)
            for index in range(text.layers)
        )
        self.score_head = ScoreHead(text.width, len(variant.beginnings))

    def begin(
        self,
        z_t: Float[Tensor, "query token width"] | None,
        token_ids: Int[Tensor, "query token"],
        lengths: Int[Tensor, " query"],
        references: Float[Tensor, "query patch image_width"] | None = None,
    ) -> QueryStates:
        """Layer 0's self-attention, which no candidate can change, and what the looks at z_t or at
        the reference see: once per query. ``references`` are image tokens; what the variant does
        not read may be None.

        z_t and text have the same tokens, so one mask serves both branches.
        """
        mask = token_mask(lengths, token_ids.shape[1])
        text = self.embeddings(token_ids)
        branches = self.layers[0].attend_self(
            tuple(_given(z_t) if one == "z_t" else text for one in self.config.variant.beginnings),
            mask,
            self._positions(0),
        )
        seen = [layer.project_query(z_t, references) for layer in self.layers]
        return QueryStates(branches, mask, seen)

    def project(
        self, image_tokens: Float[Tensor, "candidate patch image_width"]
    ) -> CandidateStates:
        """Every layer's cross-attention keys and values: once per candidate."""
        return [layer.project(image_tokens) for layer in self.layers]

    def finish(
        self,
        queries: QueryStates,
        candidates: CandidateStates,
        query_of_pair: Int[Tensor, " pair"],
        candidate_of_pair: Int[Tensor, " pair"],
    ) -> Float[Tensor, " pair"]:
        """Scores of the pairs, without the prior; higher is better, the scale is a logit's."""
        branches = tuple(x[query_of_pair] for x in queries.branches)
        mask = queries.mask[query_of_pair]
        for index, (own, theirs) in enumerate(zip(queries.seen, candidates, strict=True)):
            layer = self.layers[index]
            if index > 0:
                branches = layer.attend_self(branches, mask, self._positions(index))
            seen = [context.select(query_of_pair) for context in own]
            seen += [context.select(candidate_of_pair) for context in theirs]
            branches = run_layer(
                layer.attend_others, branches, seen, mask, again=self.checkpointing
            )
        score: Tensor = self.score_head(torch.cat([x[:, 0] for x in branches], dim=-1))
        return score

    def forward(
        self,
        z_t: Float[Tensor, "pair token width"] | None,
        token_ids: Int[Tensor, "pair token"],
        lengths: Int[Tensor, " pair"],
        image_tokens: Float[Tensor, "pair patch image_width"],
        references: Float[Tensor, "pair patch image_width"] | None = None,
    ) -> Float[Tensor, " pair"]:
        """Score of query i with candidate i, for all i."""
        each = torch.arange(len(lengths), device=lengths.device)
        begun = self.begin(z_t, token_ids, lengths, references)
        return self.finish(begun, self.project(image_tokens), each, each)

    def _positions(self, index: int) -> slice:
        """The last layer's output is read at position 0 only, so only that is computed."""
        return slice(0, 1) if index == len(self.layers) - 1 else slice(None)
