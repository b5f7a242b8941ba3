"""Image tokens that are kept in the store, read instead of being computed again."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cir_core.errors import ImageProblem
from cir_core.ports import ImageEncoder
from storage.views import KeptTokens
from tasks.feed.image_tokens import Pictures, Plan, Seen, compute_tokens
from tasks.feed.lookahead import prepared
from tasks.feed.upload import Upload

_log = logging.getLogger(__name__)


class TokenCache:
    """The artifact ``tokens``, mapped into memory: what is asked for is read, in fp32."""

    def __init__(self, kept: KeptTokens) -> None:
        self._parts = kept.map_arrays("tokens")
        self._size = max(1, len(self._parts[0]))
        self.problems = {
            str(row["item"]): ImageProblem(row["kind"], row["message"])
            for row in kept.read("problems").to_pylist()
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Tokens and width of an image."""
        return self._parts[0].shape[1:]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, rows: Tensor) -> Tensor:
        found = torch.empty((len(rows), *self.shape))
        self.read(rows.numpy(), found.numpy())
        return found

    def read(self, rows: np.ndarray, out: Float[np.ndarray, "image token width"]) -> None:
        """Fill ``out`` with the tokens of these rows; those of unusable images are 0."""
        part = rows // self._size
        for number in np.unique(part):
            mine = part == number
            out[mine] = self._parts[number][rows[mine] - number * self._size]


@contextmanager
def see_images(
    pictures: Pictures, encoder: ImageEncoder, plan: Plan, kept: KeptTokens | None
) -> Iterator[Iterator[Seen]]:
    """Each batch of the plan, in order; the next ones are decoded, or read where tokens are kept,
    while the last is used. With kept tokens no file is opened. Raises as ``feed_pixels``."""
    if kept is None:
        seeing = compute_tokens(pictures, encoder, plan)
    else:
        _log.info("image tokens are read from %s", kept)
        seeing = _read(pictures, TokenCache(kept), encoder.device, plan)
    with seeing as seen:
        yield seen


@contextmanager
def _read(
    pictures: Pictures, kept: TokenCache, device: torch.device, plan: Plan
) -> Iterator[Iterator[Seen]]:
    upload = Upload(device)
    ids = pictures.table()["image_id"].to_pylist()
    problems = {row: kept.problems[one] for row, one in enumerate(ids) if one in kept.problems}

    def make(rows: Sequence[int]) -> Seen:
        usable = [row for row in rows if row not in problems]
        buffer = upload.buffer(len(usable), *kept.shape, dtype=torch.float32)
        kept.read(np.array(usable, dtype=int), buffer.numpy())
        mine = {row: problems[row] for row in rows if row in problems}
        return Seen(usable, upload.send(buffer), mine)

    with prepared(make, plan) as made:
        yield (replace(seen, tokens=upload.claim(seen.tokens)) for seen in made)
