"""How large the GPU's benchmark is, where it runs, and what a part of it finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from full_size import TEXT, VISION
from rerank import CONFIG, draw_queries

from cir_core.layers.config import TextConfig, VisionConfig
from cir_core.ports import FusedQueries
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.types import Precision


class Row(NamedTuple):
    """A line of the table."""

    what: str
    measured: str
    goal: str = ""


@dataclass(frozen=True)
class Found:
    """What a part has measured, to be read by people and by programs."""

    rows: Sequence[Row]
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """``tiny`` is all of it in small, for a CPU: its numbers say nothing."""

    device: torch.device
    tiny: bool

    @property
    def precisions(self) -> list[Precision]:
        return ["fp32", "bf16"] if self.device.type == "cpu" else ["fp32", "tf32", "bf16", "fp16"]

    def wanted(self, *precisions: Precision) -> list[Precision]:
        """Those that the device has."""
        return [one for one in precisions if one in self.precisions]

    @property
    def vision(self) -> VisionConfig:
        small = {"image_size": 64, "width": 48, "depth": 1, "heads": 2, "mlp_width": 96}
        return VISION.model_copy(update=small) if self.tiny else VISION

    @property
    def text(self) -> TextConfig:
        small = {"width": 48, "layers": 2, "heads": 2, "feed_forward": 96}
        return TEXT.model_copy(update=small) if self.tiny else TEXT

    @property
    def config(self) -> Stage2Config:
        """Of a stage 2 whose image tokens are drawn, not encoded."""
        sizes = {
            "vision": self.vision.model_copy(update={"depth": 1}),
            "text": self.text,
            "merge_from": self.text.layers // 2,
        }
        return CONFIG.model_copy(update=sizes)

    def small(self, at_full_size: int, tiny: int) -> int:
        return tiny if self.tiny else at_full_size

    @cached_property
    def model(self) -> Stage2Model:
        """Random weights, on the CPU."""
        torch.manual_seed(0)
        return Stage2Model(self.config).eval()

    @cached_property
    def queries(self) -> FusedQueries:
        return draw_queries(self.text)

    def image_tokens(self, images: int) -> torch.Tensor:
        torch.manual_seed(1)
        return torch.randn(images, self.vision.tokens, self.vision.width, device=self.device)
