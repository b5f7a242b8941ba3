"""The dual encoder as a ``Reranker``: its engine scores."""

from dataclasses import dataclass

import torch

from cir_core.layers.vision import FrozenEncoder
from cir_core.ports import FusedQueries, Scorer
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.types import Precision


@dataclass(frozen=True)
class DualReranker:
    """Of a model in eval mode."""

    model: Stage2Model

    @property
    def config(self) -> Stage2Config:
        return self.model.config

    @property
    def encoder(self) -> FrozenEncoder:
        return self.model.vision

    def open(
        self,
        queries: FusedQueries,
        *,
        device: torch.device,
        memory: int | None,
        precision: Precision,
    ) -> Scorer:
        return RerankEngine(self.model, queries, device=device, memory=memory, precision=precision)
