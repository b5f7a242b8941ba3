"""Stage 1's training (section 3.2): in-batch contrast of fused queries with target images."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from cir_core.layers.wordpiece import TokenBatch
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.training.batches import drawn_ways, epoch_rows, steps_per_epoch
from cir_core.training.gradients import Splits
from cir_core.training.losses import at_least_fp32, contrast
from cir_core.training.recipes import Stage1Recipe
from cir_core.training.triplets import Triplets


@dataclass(frozen=True)
class Stage1Batch:
    """Queries and their images' rows."""

    texts: TokenBatch
    references: Int[Tensor, " query"]
    targets: Int[Tensor, " query"]

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, rows: slice) -> "Stage1Batch":
        return replace(
            self,
            texts=self.texts.rows(rows),
            references=self.references[rows],
            targets=self.targets[rows],
        )


class Stage1Training:
    """The ViT is frozen: its tokens come from ``triplets``. Negatives are the batch's other
    targets and, if the recipe says so, all of its references."""

    splits: Splits = "representations"

    def __init__(
        self, model: Stage1Model, triplets: Triplets, recipe: Stage1Recipe, device: torch.device
    ) -> None:
        self.model = model.to(device)
        self.model.vision.requires_grad_(False)
        self.model.text.checkpointing = recipe.checkpointing
        self.triplets, self.recipe, self.device = triplets, recipe, device

    @property
    def trained(self) -> nn.Module:
        return self.model

    def __len__(self) -> int:
        return len(self.triplets)

    def draw(self, _rng: np.random.Generator, step: int) -> Stage1Batch:
        data, recipe = self.triplets, self.recipe
        epoch = step // steps_per_epoch(len(data), recipe.batch)
        rows = epoch_rows(len(data), recipe.batch, recipe.seed, step)
        ways = drawn_ways(data.ways, recipe.seed, epoch)
        return Stage1Batch(data.texts(rows, ways), data.reference[rows], data.target[rows])

    def represent(self, batch: Stage1Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of queries, targets and references."""
        references = self.triplets.image_tokens[batch.references].to(self.device)
        targets = self.triplets.image_tokens[batch.targets].to(self.device)
        texts = batch.texts.to(self.device)
        z_t = self.model.fuse(texts.ids, texts.lengths, references)
        return (
            at_least_fp32(self.model.embed_queries(z_t)),
            at_least_fp32(self.model.embed_images(targets)),
            at_least_fp32(self.model.embed_images(references)),
        )

    def losses(
        self,
        batch: Stage1Batch,
        representations: tuple[Tensor, Tensor, Tensor],
    ) -> dict[str, Tensor]:
        queries, targets, references = representations
        images, rows_of_images = targets, batch.targets
        if self.recipe.reference_negatives:
            images = torch.cat([targets, references])
            rows_of_images = torch.cat([batch.targets, batch.references])
        hidden = rows_of_images == batch.targets[:, None]
        hidden.fill_diagonal_(False)
        hidden = hidden.to(self.device)
        loss = contrast(queries, images, self.model.temperature, hidden)
        with torch.no_grad():
            products = (queries @ images.T).masked_fill(hidden, -1)
            own = products.diagonal()
        return {
            "loss": loss,
            "accuracy": (own >= products.max(dim=1).values).float().mean(),
            "temperature": self.model.temperature.detach(),
        }
