"""Stage 2's training (section 3.3): choose the target among candidates, z_t from frozen stage 1.

The paper scores every query of a batch with every target of the batch. Random targets are too easy
for a small model: it learns to tell a red dress from a blue shirt and stops. So the candidates of
a query can also be drawn from stage 1's own best of the training gallery, beside the reference
itself and a few random images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cir_core.layers.wordpiece import TokenBatch
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import QueryStates, Stage2Model
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.training.batches import drawn_ways, length_sorted_rows, steps_per_epoch
from cir_core.training.gradients import Splits
from cir_core.training.losses import accuracy, at_least_fp32, choice
from cir_core.training.recipes import Stage2Recipe
from cir_core.training.triplets import Triplets, top_candidates

QUERIES_AT_A_TIME = 256
"""Queries that are fused together when stage 1 ranks the training gallery."""


@dataclass(frozen=True)
class Stage2Batch:
    """Queries with their candidates' rows: the target first. ``hidden`` marks candidates that are
    the target once more, or another right answer's twin: they must not count as wrong."""

    texts: TokenBatch
    references: Int[Tensor, " query"]
    candidates: Int[Tensor, "query candidate"]
    hidden: Bool[Tensor, "query candidate"]

    def __len__(self) -> int:
        return len(self.candidates)

    def part(self, rows: slice) -> "Stage2Batch":
        return Stage2Batch(
            self.texts.rows(rows), self.references[rows], self.candidates[rows], self.hidden[rows]
        )


class Stage2Training:
    """Trains the dual encoder; stage 1 stays frozen, in eval mode (the published code leaves its
    drop-path on). The model's prior is not part of the loss: stage 1 has been trained on the same
    triplets and ranks them far better than any others, so little would be left to learn."""

    splits: Splits = "rows"

    def __init__(
        self,
        model: Stage2Model,
        stage1: Stage1Model,
        triplets: Triplets,
        recipe: Stage2Recipe,
        device: torch.device,
    ) -> None:
        self.model = model.to(device)
        self.model.vision.requires_grad_(False)
        self.model.checkpointing = recipe.checkpointing
        self.stage1 = stage1.to(device).eval().requires_grad_(False)
        self.triplets, self.recipe, self.device = triplets, recipe, device
        self.sizes = np.array([len(gallery) for gallery in triplets.galleries])
        self.hard = self._stage1_best(self._embed_images()) if recipe.hard else None

    @property
    def trained(self) -> nn.Module:
        return self.model

    def __len__(self) -> int:
        return len(self.triplets)

    def draw(self, rng: np.random.Generator, step: int) -> Stage2Batch:
        data, recipe = self.triplets, self.recipe
        epoch = step // steps_per_epoch(len(data), recipe.batch)
        ways = drawn_ways(data.ways, recipe.seed, epoch)
        rows = length_sorted_rows(data.lengths_of(ways), recipe.batch, recipe.seed, step)
        candidates = self._candidates(rows, rng)
        hidden = candidates == candidates[:, :1]
        hidden[:, 0] = False
        return Stage2Batch(data.texts(rows, ways), data.reference[rows], candidates, hidden)

    def represent(self, batch: Stage2Batch) -> tuple[Float[Tensor, "query candidate"]]:
        """The score of every candidate; each image is projected once."""
        texts = batch.texts.to(self.device)
        images, candidate_of_pair = batch.candidates.unique(return_inverse=True)
        query_of_pair = torch.arange(len(batch))[:, None].expand_as(batch.candidates)
        scores = self.model.finish(
            self._begin(texts, batch.references),
            self.model.project(self.triplets.image_tokens[images].to(self.device)),
            query_of_pair.flatten().to(self.device),
            candidate_of_pair.flatten().to(self.device),
        )
        return (at_least_fp32(scores).view(batch.candidates.shape),)

    def _begin(self, texts: TokenBatch, references: Int[Tensor, " query"]) -> QueryStates:
        """The queries, as far as the model reads them."""
        config = self.model.config
        z_t = self._z_t(texts, references) if config.variant.reads_z_t else None
        seen = None
        if config.reads_references:
            seen = self.triplets.image_tokens[references].to(self.device)
        read = texts if config.variant.text else _empty(texts)
        return self.model.begin(z_t, read.ids, read.lengths, seen)

    def losses(self, batch: Stage2Batch, representations: tuple[Tensor]) -> dict[str, Tensor]:
        (scores,) = representations
        scores = scores.masked_fill(batch.hidden.to(scores.device), float("-inf"))
        return {"loss": choice(scores), "accuracy": accuracy(scores)}

    @torch.no_grad()
    def _z_t(
        self, texts: TokenBatch, references: Int[Tensor, " query"]
    ) -> Float[Tensor, "query token width"]:
        tokens = self.triplets.image_tokens[references].to(self.device)
        return self.stage1.fuse(texts.ids, texts.lengths, tokens)

    def _candidates(
        self, rows: np.ndarray, rng: np.random.Generator
    ) -> Int[Tensor, "query candidate"]:
        data, recipe = self.triplets, self.recipe
        targets = data.target[rows]
        columns = [targets[:, None]]
        if recipe.in_batch:
            columns.append(_others(targets))
        if recipe.reference:
            columns.append(data.reference[rows][:, None])
        if self.hard is not None:
            order = torch.from_numpy(rng.random((len(rows), self.hard.shape[1]))).argsort(dim=1)
            columns.append(self.hard[rows].gather(1, order[:, : recipe.hard]))
        if recipe.random:
            columns.append(self._random(rows, rng))
        return torch.cat(columns, dim=1)

    def _random(self, rows: np.ndarray, rng: np.random.Generator) -> Int[Tensor, "query candidate"]:
        """Images of each example's own gallery."""
        category = self.triplets.category[rows].numpy()
        drawn = rng.random((len(rows), self.recipe.random)) * self.sizes[category][:, None]
        return torch.stack(
            [
                self.triplets.galleries[number][torch.from_numpy(places)]
                for number, places in zip(category, drawn.astype(np.int64), strict=True)
            ]
        )

    @torch.no_grad()
    def _embed_images(self) -> Float[Tensor, "image embedding"]:
        """Stage 1's, of every training image."""
        tokens = self.triplets.image_tokens
        chunks = torch.arange(len(tokens)).split(QUERIES_AT_A_TIME)
        return torch.cat(
            [self.stage1.embed_images(tokens[rows].to(self.device)).cpu() for rows in chunks]
        )

    @torch.no_grad()
    def _stage1_best(
        self, embeddings: Float[Tensor, "image embedding"]
    ) -> Int[Tensor, "example k"]:
        data, first_way = self.triplets, np.zeros(len(self.triplets), dtype=np.int64)
        queries = []
        for rows in torch.arange(len(data)).split(QUERIES_AT_A_TIME):
            texts = data.texts(rows.numpy(), first_way).to(self.device)
            z_t = self._z_t(texts, data.reference[rows])
            queries.append(self.stage1.embed_queries(z_t).cpu())
        return top_candidates(torch.cat(queries), embeddings, data, self.recipe.hard_from)


def _empty(texts: TokenBatch) -> TokenBatch:
    """As many empty texts: [ENC] and [SEP], the first and last token of each."""
    last = texts.ids.gather(1, texts.lengths[:, None] - 1)
    ids = torch.cat([texts.ids[:, :1], last], dim=1)
    return TokenBatch(ids, torch.full_like(texts.lengths, 2))


def _others(targets: Int[Tensor, " query"]) -> Int[Tensor, "query others"]:
    """For each query the batch's other targets."""
    size = len(targets)
    places = (torch.arange(size)[:, None] + torch.arange(1, size)) % size
    return targets[places]


def stage2_from_base(base: Stage1Model, config: Stage2Config) -> Stage2Model:
    """A reranker that starts from the pre-trained base: every attention is copied into all
    branches and looks (as published); linear merges start as the mean; and the score starts as what
    the base's matching head would say of the branches' mean. A look at z_t starts anew where
    z_t is not as wide as image tokens."""
    model = Stage2Model(config)
    model.vision.load_state_dict(base.vision.state_dict())
    model.embeddings.load_state_dict(base.text.embeddings.state_dict())
    for layer, source in zip(model.layers, base.text.layers, strict=True):
        for attention, norm in zip(layer.self_attention, layer.self_norm, strict=True):
            attention.load_state_dict(source.self_attention.state_dict())
            norm.load_state_dict(source.self_norm.state_dict())
        for norm in layer.cross_norm:
            norm.load_state_dict(source.cross_norm.state_dict())
        for look, attention in zip(layer.looks, layer.cross_attention, strict=True):
            if look.at != "z_t" or config.text.width == config.vision.width:
                attention.load_state_dict(source.cross_attention.state_dict())
        layer.feed_forward.load_state_dict(source.feed_forward.state_dict())
        if layer.merge is not None:
            _start_as_mean(layer.merge)
    if base.config.kind == "blip":
        _start_as_matching(model, base.matching_head)
    return model


@torch.no_grad()
def _start_as_mean(merge: nn.Linear) -> None:
    half = torch.eye(merge.out_features) / 2
    merge.weight.copy_(torch.cat([half, half], dim=1))
    nn.init.zeros_(merge.bias)


@torch.no_grad()
def _start_as_matching(model: Stage2Model, matching_head: nn.Linear) -> None:
    """Hidden units 0 and 1 hold +m and -m before the ReLU, so their difference is the matching
    logit m of the branches' mean; the other units start random and are read faintly (0.02)."""
    head = model.score_head
    nn.init.xavier_uniform_(head.hidden.weight)
    nn.init.zeros_(head.hidden.bias)
    branches = len(model.config.variant.beginnings)
    direction = (matching_head.weight[1] - matching_head.weight[0]) / branches
    offset = matching_head.bias[1] - matching_head.bias[0]
    for unit, sign in ((0, 1.0), (1, -1.0)):
        head.hidden.weight[unit] = sign * direction.repeat(branches)
        head.hidden.bias[unit] = sign * offset
    nn.init.normal_(head.output.weight, std=0.02)
    nn.init.zeros_(head.output.bias)
    head.output.weight[0, 0], head.output.weight[0, 1] = 1.0, -1.0
