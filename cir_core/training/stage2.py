"""Stage 2's training (section 3.3): choose the target among candidates, z_t from frozen stage 1.

The paper scores every query of a batch with every target of the batch. Random targets are too easy
for a small model: it learns to tell a red dress from a blue shirt and stops. So the candidates of
a query can also be drawn from stage 1's own best of the training gallery, beside the reference
itself and a few random images.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from cir_core.models.config import Stage2Config
from cir_core.models.fusion import Stage1Model
from cir_core.models.reranker import BRANCHES, Stage2Model
from cir_core.training.loop import Recipe
from cir_core.training.losses import accuracy, choice
from cir_core.training.triplets import Triplets, length_sorted_rows, top_candidates


class Stage2Recipe(Recipe):
    """Candidates of a query: its target, its reference, ``hard`` of stage 1's first ``hard_from``
    of the training gallery, and ``random`` others of its category."""

    hard: int = 10
    hard_from: int = 100
    random: int = 4


class Stage2Training:
    """Trains the dual encoder; stage 1 stays frozen, in eval mode (the published code leaves its
    drop-path on)."""

    def __init__(
        self, model: Stage2Model, stage1: Stage1Model, triplets: Triplets, recipe: Stage2Recipe
    ) -> None:
        self.model = model
        self.model.vision.requires_grad_(False)
        self.stage1 = stage1.eval().requires_grad_(False)
        self.triplets, self.recipe = triplets, recipe
        self.hard = self._stage1_best()

    @property
    def trained(self) -> nn.Module:
        return self.model

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        data = self.triplets
        rows = length_sorted_rows(data, self.recipe.batch, self.recipe.seed, step)
        texts = data.texts(rows)
        with torch.no_grad():
            references = data.image_tokens[data.reference[rows]]
            z_t = self.stage1.fuse(texts.ids, texts.lengths, references)
        candidates = self._candidates(rows, rng)
        images, candidate_of_pair = candidates.unique(return_inverse=True)
        query_of_pair = torch.arange(len(rows))[:, None].expand_as(candidates)
        scores = self.model.finish(
            self.model.begin(z_t, texts.ids, texts.lengths),
            self.model.project(data.image_tokens[images]),
            query_of_pair.flatten(),
            candidate_of_pair.flatten(),
        ).view(candidates.shape)
        return {"loss": choice(scores), "accuracy": accuracy(scores)}

    def _candidates(
        self, rows: np.ndarray, rng: np.random.Generator
    ) -> Int[Tensor, "query candidate"]:
        data, recipe = self.triplets, self.recipe
        order = torch.from_numpy(rng.random((len(rows), self.hard.shape[1]))).argsort(dim=1)
        hard = self.hard[rows].gather(1, order[:, : recipe.hard])
        others = [self._random_others(int(row), rng) for row in rows]
        fixed = torch.stack([data.target[rows], data.reference[rows]], dim=1)
        return torch.cat([fixed, hard, torch.stack(others)], dim=1)

    def _random_others(self, row: int, rng: np.random.Generator) -> Int[Tensor, " candidate"]:
        """Images of the example's gallery, never its target."""
        gallery = self.triplets.galleries[int(self.triplets.category[row])]
        drawn = gallery[torch.from_numpy(rng.integers(len(gallery), size=self.recipe.random))]
        target, reference = self.triplets.target[row], self.triplets.reference[row]
        return torch.where(drawn == target, reference, drawn)

    def _stage1_best(self) -> Int[Tensor, "example k"]:
        data = self.triplets
        with torch.no_grad():
            images = self.stage1.embed_images(data.image_tokens)
            queries = []
            for rows in np.array_split(np.arange(len(data)), max(1, len(data) // 256)):
                texts = data.texts(rows)
                references = data.image_tokens[data.reference[rows]]
                z_t = self.stage1.fuse(texts.ids, texts.lengths, references)
                queries.append(self.stage1.embed_queries(z_t))
        return top_candidates(torch.cat(queries), images, data, self.recipe.hard_from)


def stage2_from_base(base: Stage1Model, config: Stage2Config) -> Stage2Model:
    """A dual encoder that starts from the pre-trained base: every attention is duplicated into
    both branches (as published); linear merges start as the mean; and the score starts as what
    the base's matching head would say of the two branches' mean."""
    model = Stage2Model(config)
    model.vision.load_state_dict(base.vision.state_dict())
    model.embeddings.load_state_dict(base.text.embeddings.state_dict())
    for layer, source in zip(model.layers, base.text.layers, strict=True):
        for branch in range(BRANCHES):
            layer.self_attention[branch].load_state_dict(source.self_attention.state_dict())
            layer.self_norm[branch].load_state_dict(source.self_norm.state_dict())
            layer.cross_attention[branch].load_state_dict(source.cross_attention.state_dict())
            layer.cross_norm[branch].load_state_dict(source.cross_norm.state_dict())
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
    direction = (matching_head.weight[1] - matching_head.weight[0]) / 2
    offset = matching_head.bias[1] - matching_head.bias[0]
    for unit, sign in ((0, 1.0), (1, -1.0)):
        head.hidden.weight[unit] = sign * torch.cat([direction, direction])
        head.hidden.bias[unit] = sign * offset
    nn.init.normal_(head.output.weight, std=0.02)
    nn.init.zeros_(head.output.bias)
    head.output.weight[0, 0], head.output.weight[0, 1] = 1.0, -1.0
