"""A question whose answer everybody knows: does the model, asked as it will be, know it too?"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from torch import Tensor

from cir_core.ports import FusedQueries
from cir_core.rerankers.vlm.model import VlmModel
from cir_core.rerankers.vlm.scorer import VlmScorer

SIDE = 224
"""Of the drawings, in pixels."""

TEXT = "is blue instead of red"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OneReference:
    """``References`` of a single query."""

    seen: Float[Tensor, "1 token width"]

    @property
    def of_query(self) -> Int[np.ndarray, " query"]:
        return np.zeros(1, dtype=np.int64)

    def states(self, references: Int[np.ndarray, " some"]) -> Float[Tensor, "some token width"]:
        return self.seen[torch.from_numpy(references)]


def golden_pictures() -> tuple[Image.Image, Image.Image, Image.Image]:
    """A red disc, the blue one that is asked for, and a green triangle."""
    drawings = [Image.new("RGB", (SIDE, SIDE), "white") for _ in range(3)]
    box = (SIDE // 5, SIDE // 5, 4 * SIDE // 5, 4 * SIDE // 5)
    for drawing, colour in zip(drawings, ("red", "blue"), strict=False):
        ImageDraw.Draw(drawing).ellipse(box, fill=colour)
    left, top, right, bottom = box
    triangle = [(left, bottom), (right, bottom), ((left + right) // 2, top)]
    ImageDraw.Draw(drawings[2]).polygon(triangle, fill="green")
    reference, match, mismatch = drawings
    return reference, match, mismatch


def golden_scores(
    model: VlmModel, opened: Callable[[FusedQueries], VlmScorer], device: torch.device
) -> tuple[float, float]:
    """Of a clear match and of a clear mismatch, by the scorer that is ``opened`` for a query.
    Raises as ``VlmScorer.score``."""
    encoder = model.encoder.to(device)
    crops = [model.config.pictures.crop(one) for one in golden_pictures()]
    seen = encoder.see(torch.from_numpy(np.stack(crops)))
    token_ids = model.config.tokenizer()([TEXT])
    queries = FusedQueries.of([], token_ids, texts=[TEXT], references=OneReference(seen[:1].cpu()))
    scorer = opened(queries)
    found = scorer.score(scorer.prepare(seen[1:]), np.zeros(2, dtype=np.int64), np.arange(2))
    match, mismatch = found.tolist()
    return match, mismatch


def warn_of_golden(match: float, mismatch: float) -> None:
    """Where the match does not win, every order of this model is in doubt."""
    told = f"golden pair: a clear match scores {match:.3f}, a clear mismatch {mismatch:.3f}"
    if match > mismatch:
        _log.info(told)
    else:
        _log.warning(
            "%s: the model does not answer as it should; its form or chat template may be another "
            "than it was trained with (docs/models.md)",
            told,
        )
