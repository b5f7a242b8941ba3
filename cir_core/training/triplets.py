"""What stages 1 and 2 train on: (reference, text, target) rows over frozen image tokens."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.layers.wordpiece import TokenBatch, pad_tokens


class ImageTokens(Protocol):
    """The frozen ViT's tokens of the training images: kept, or computed when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Int[Tensor, " image"]) -> Float[Tensor, "image patch width"]:
        """Tokens of these images, in fp32."""
        ...


@dataclass(frozen=True)
class Triplets:
    """Training examples over the rows of one table of images.

    ``category`` gives each example's gallery, ``galleries`` the image rows of each gallery.
    ``token_ids`` holds every example's text in each of its wordings. ``origin`` names what the
    image tokens were made of: their own bytes are too many to be hashed.
    """

    image_tokens: ImageTokens
    reference: Int[Tensor, " example"]
    target: Int[Tensor, " example"]
    category: Int[Tensor, " example"]
    galleries: list[Int[Tensor, " image"]]
    token_ids: list[list[list[int]]]
    origin: str = ""

    def __len__(self) -> int:
        return len(self.token_ids)

    def digest(self) -> str:
        """sha256 of all that a training can read here."""
        digest = hashlib.sha256(json.dumps([self.origin, self.token_ids]).encode())
        for tensor in (self.reference, self.target, self.category, *self.galleries):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def ways(self) -> Int[np.ndarray, " example"]:
        """How many wordings each example has."""
        return np.array([len(texts) for texts in self.token_ids])

    @cached_property
    def lengths(self) -> Int[np.ndarray, "example way"]:
        """Tokens of each example's wordings; 0 where it has fewer than others."""
        lengths = np.zeros((len(self), self.ways.max(initial=0)), dtype=np.int64)
        for row, texts in zip(lengths, self.token_ids, strict=True):
            row[: len(texts)] = [len(ids) for ids in texts]
        return lengths

    def lengths_of(self, ways: Int[np.ndarray, " example"]) -> Int[np.ndarray, " example"]:
        """Tokens of every example's text in the wording chosen for it."""
        return self.lengths[np.arange(len(self)), ways]

    def texts(self, rows: np.ndarray, ways: np.ndarray) -> TokenBatch:
        """The rows' texts; ``ways`` chooses a wording for every example."""
        return pad_tokens([self.token_ids[row][ways[row]] for row in rows])


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
