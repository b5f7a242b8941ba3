"""What stages 1 and 2 train on: frozen image tokens, and (reference, text, target) rows."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.models.tokenizer import TokenBatch, pad_tokens


@dataclass(frozen=True)
class Triplets:
    """Training examples over the rows of one table of image tokens.

    ``category`` gives each example's gallery, ``galleries`` the image rows of each gallery.
    """

    image_tokens: Float[Tensor, "image patch width"]
    reference: Int[Tensor, " example"]
    target: Int[Tensor, " example"]
    category: Int[Tensor, " example"]
    galleries: list[Int[Tensor, " image"]]
    token_ids: list[list[int]]

    def __len__(self) -> int:
        return len(self.token_ids)

    def digest(self) -> str:
        """sha256 of all that a training can read here."""
        digest = hashlib.sha256(json.dumps(self.token_ids).encode())
        for tensor in (self.image_tokens, self.reference, self.target, self.category):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def texts(self, rows: np.ndarray) -> TokenBatch:
        return pad_tokens([self.token_ids[row] for row in rows])


def length_sorted_rows(
    triplets: Triplets, batch: int, seed: int, step: int, *, pool: int = 32
) -> np.ndarray:
    """Rows of the step's batch, of similar text length: an epoch's permutation is cut into pools
    of ``pool`` batches, each pool sorted by length and its batches shuffled. Little padding, and
    still another mixture each epoch."""
    total, per_epoch = len(triplets), max(1, len(triplets) // batch)
    epoch, position = divmod(step, per_epoch)
    rng = np.random.default_rng((seed, 1, epoch))
    order = rng.permutation(total)
    start = position // pool * pool * batch
    members = order[start : min(start + pool * batch, per_epoch * batch)]
    lengths = np.array([len(triplets.token_ids[row]) for row in members])
    members = members[np.argsort(lengths, kind="stable")]
    batches = np.random.default_rng((seed, 2, epoch, position // pool)).permutation(
        max(1, len(members) // batch)
    )
    chosen = int(batches[position % pool])
    return members[chosen * batch : (chosen + 1) * batch]


def top_candidates(
    queries: Float[Tensor, "example embedding"],
    images: Float[Tensor, "image embedding"],
    triplets: Triplets,
    k: int,
) -> Int[Tensor, "example k"]:
    """Stage 1's best ``k`` image rows of each example's own gallery, its target left out.

    Fewer where the smallest gallery has no ``k`` images beside a target.
    """
    k = min(k, min(map(len, triplets.galleries)) - 1)
    best = torch.empty(len(triplets), k, dtype=torch.long)
    for number, gallery in enumerate(triplets.galleries):
        for rows in torch.nonzero(triplets.category == number).flatten().split(1024):
            similarity = queries[rows] @ images[gallery].T
            similarity.masked_fill_(gallery == triplets.target[rows, None], float("-inf"))
            best[rows] = gallery[similarity.topk(k, dim=1).indices]
    return best
