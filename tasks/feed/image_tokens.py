"""Image tokens, batch by batch: what the frozen ViT makes of pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from cir_core.errors import ImageProblem
from cir_core.ports import ImageEncoder
from storage.views import Ingested
from tasks.feed.pictures import Distinct, distinct_pictures
from tasks.feed.pixels import Pixels, batches, feed_pixels, image_files
from tasks.machine import Machine

Plan = Sequence[Sequence[int]]
"""Batches of pictures, by their rows; none of them empty."""


@dataclass(frozen=True)
class Seen:
    """A batch of pictures as the ViT sees them: ``rows`` are those of the usable ones, ``tokens``
    theirs, on the ViT's device; ``problems`` are those of the other rows."""

    rows: Sequence[int]
    tokens: Float[Tensor, "image token width"]
    problems: Mapping[int, ImageProblem]


@dataclass(frozen=True)
class Pictures:
    """The pictures of an ingested split, images that are copies being one, and the files' root;
    ``machine`` says how they reach the ViT, and changes no result."""

    ingested: Ingested
    root: Path
    machine: Machine

    @cached_property
    def distinct(self) -> Distinct:
        """The ingested images by their bytes."""
        return distinct_pictures(self.ingested.read("images"))

    def table(self) -> pa.Table:
        """A row for each picture, in the order that rows count: its first image's."""
        return self.distinct.table

    def plan(self, rows: Sequence[int]) -> Plan:
        """These rows in batches; no rows, no batch."""
        return batches(rows, self.machine.batch)


@contextmanager
def compute_tokens(
    pictures: Pictures, encoder: ImageEncoder, plan: Plan
) -> Iterator[Iterator[Seen]]:
    """Each batch of the plan, in order; the next ones are decoded while the last is used. Raises as
    ``feed_pixels``."""
    with feed_pixels(
        pictures.root,
        image_files(pictures.table()),
        plan,
        encoder.pictures,
        device=encoder.device,
        workers=pictures.machine.workers,
    ) as fed:
        yield (_see(encoder, pixels) for pixels in fed)


@torch.inference_mode()
def _see(encoder: ImageEncoder, pixels: Pixels) -> Seen:
    return Seen(pixels.rows, encoder.see(pixels.pixels), pixels.problems)
