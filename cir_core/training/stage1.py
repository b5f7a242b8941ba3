"""Stage 1's training (section 3.2): in-batch contrast of fused queries with target images."""

import numpy as np
import torch
from torch import Tensor, nn

from cir_core.models.fusion import Stage1Model
from cir_core.training.loop import Recipe, epoch_rows
from cir_core.training.losses import contrast
from cir_core.training.triplets import Triplets


class Stage1Training(nn.Module):
    """The ViT is frozen: its tokens come from ``triplets``. Negatives are the batch's other
    targets and, beyond the paper, all of its references, a query's own included."""

    def __init__(self, model: Stage1Model, triplets: Triplets, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.model.vision.requires_grad_(False)
        self.triplets, self.recipe = triplets, recipe

    @property
    def trained(self) -> nn.Module:
        return self

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        data = self.triplets
        rows = epoch_rows(len(data), self.recipe.batch, self.recipe.seed, step)
        texts = data.texts(rows)
        references, targets = data.reference[rows], data.target[rows]
        z_t = self.model.fuse(texts.ids, texts.lengths, data.image_tokens[references])
        queries = self.model.embed_queries(z_t)
        rows_of_images = torch.cat([targets, references])
        images = self.model.embed_images(data.image_tokens[rows_of_images])
        hidden = rows_of_images == targets[:, None]
        hidden.fill_diagonal_(False)
        loss = contrast(queries, images, self.model.temperature, hidden)
        with torch.no_grad():
            own = (queries * images[: len(queries)]).sum(dim=1, keepdim=True)
            best = (queries @ images.T).masked_fill(hidden, -1).max(dim=1, keepdim=True).values
        return {"loss": loss, "accuracy": (own >= best).float().mean()}
