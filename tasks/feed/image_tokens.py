"""Image tokens, batch by batch: what the frozen ViT makes of pictures."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cir_core.errors import ImageProblem, PreflightError
from cir_core.memory import is_out_of_memory
from cir_core.ports import ImageEncoder
from storage.views import Ingested
from tasks.feed.pictures import Distinct, distinct_pictures
from tasks.feed.pixels import Pixels, batches, feed_pixels, image_files
from tasks.machine import Machine

_log = logging.getLogger(__name__)

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
        sight = Sight(encoder)
        yield (_see(sight, pixels) for pixels in fed)


@torch.inference_mode()
def _see(sight: "Sight", pixels: Pixels) -> Seen:
    return Seen(pixels.rows, sight.see(pixels.pixels), pixels.problems)


class Sight:
    """A ViT that sees no more pictures at once than memory has room for: where that is too small,
    half as many from then on."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder
        self._most: int | None = None

    def see(self, pixels: UInt8[Tensor, "image height width 3"]) -> Float[Tensor, "image ..."]:
        """As the encoder's. Raises PreflightError when memory is too small for one picture."""
        while True:
            pieces = pixels.split(self._most or max(1, len(pixels)))
            try:
                seen = [self._encoder.see(piece) for piece in pieces]
                return seen[0] if len(seen) == 1 else torch.cat(seen)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(len(pieces[0]))

    def _halve(self, pictures: int) -> None:
        if pictures == 1:
            raise PreflightError(
                "the memory is too small to encode a single picture",
                cause=f"{self._encoder.device} has no room for what its layers hold",
                remedy="free memory, or pass --device cpu",
            )
        self._most = pictures // 2
        _log.warning("out of memory: going on with %d pictures at a time", self._most)
        torch.cuda.empty_cache()  # outside of except: what had failed is free by now
