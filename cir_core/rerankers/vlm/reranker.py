"""A vision-language model, as a ``Reranker``."""

from dataclasses import dataclass
from functools import partial

import torch

from cir_core.layers.precision import require_precision
from cir_core.ports import FusedQueries, Scorer
from cir_core.rerankers.vlm.config import VlmConfig
from cir_core.rerankers.vlm.golden import golden_scores, warn_of_golden
from cir_core.rerankers.vlm.model import VlmEncoder, VlmModel
from cir_core.rerankers.vlm.scorer import VlmScorer
from cir_core.types import Precision


@dataclass(frozen=True)
class VlmReranker:
    """Pointwise: logit(yes) - logit(no) of a prompt with both pictures and the text."""

    model: VlmModel

    @property
    def config(self) -> VlmConfig:
        return self.model.config

    @property
    def encoder(self) -> VlmEncoder:
        return self.model.encoder

    def open(
        self,
        queries: FusedQueries,
        *,
        device: torch.device,
        memory: int | None,
        precision: Precision,
    ) -> Scorer:
        """Asks the golden question first, and warns when the answer is wrong."""
        require_precision(precision, device)
        opened = partial(VlmScorer, self.model, device=device, memory=memory, precision=precision)
        warn_of_golden(*golden_scores(self.model, opened, device))
        return opened(queries)
