"""A family of a few numbers: states are colours, queries have no z_t, and scores are sums. It
shares nothing with the published models but the ports."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cir_core.families import FAMILIES, Family
from cir_core.layers.config import Frozen
from cir_core.layers.preprocess import Preprocess
from cir_core.layers.wordpiece import Tokenizer
from cir_core.ordering import require_finite
from cir_core.ports import Asked, FusedQueries, Load, RetrieverConfig, Scorer, Widths
from cir_core.types import Precision

COLOURS = 3


class ToyConfig(Frozen):
    """Of either stage; pictures are squashed less than the published models pad them."""

    kind: Literal["toy stage 1", "toy stage 2"]
    size: int = 8
    embedding: int = 5
    prior: float = 0.0
    positions: int = 64
    vocabulary: str = "demo"
    state_width: int = 0
    reads_references: bool = False

    @property
    def pictures(self) -> Preprocess:
        return Preprocess(self.size, target_ratio=2.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    @property
    def image_width(self) -> int:
        return 2 * COLOURS

    @property
    def widths(self) -> Widths:
        return Widths(self.embedding, 0, self.image_width)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer("demo")

    def seeing_flops(self) -> int:
        return 0

    def asking_flops(self, lengths: np.ndarray) -> int:
        return 2 * COLOURS * self.embedding * len(lengths)

    def objections(self, retriever: RetrieverConfig) -> list[str]:
        return [] if retriever.kind == "toy stage 1" else [f"{retriever.kind} is no toy"]

    def beginning_flops(self, lengths: np.ndarray) -> float:
        return 0.0

    def scoring_flops(self, load: Load) -> float:
        """The projection of an image, once for all of its pairs."""
        return 2 * COLOURS * self.embedding * float(np.count_nonzero(load.pairs))

    def plain_flops(self, load: Load) -> float:
        return 2 * COLOURS * self.embedding * load.sums[0]


class ToyEncoder(nn.Module):
    """The mean colours of the upper and of the lower half, each times a gain."""

    precision: Precision = "fp32"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.gain = nn.Parameter(torch.ones(COLOURS))

    @property
    def pictures(self) -> Preprocess:
        return self.config.pictures

    @property
    def shape(self) -> tuple[int, int]:
        return 2, COLOURS

    @property
    def device(self) -> torch.device:
        return self.gain.device

    @property
    def digest(self) -> str:
        return f"toy {self.gain.tolist()}"

    def differing(self, other: object) -> list[str]:
        return [] if isinstance(other, ToyEncoder) and self.digest == other.digest else ["gain"]

    def see(self, pixels: Tensor) -> Tensor:
        halves = pixels.float().unflatten(1, (2, -1)).mean(dim=(2, 3)) / 255
        seen: Tensor = halves * self.gain
        return seen


class ToyModel(nn.Module):
    """A ``Retriever``, and what a ``Reranker`` is made of."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ToyEncoder(config)
        self.projection = nn.Linear(COLOURS, config.embedding)

    def embed(self, states: Tensor) -> Tensor:
        return functional.normalize(self.projection(states.mean(dim=1)), dim=-1)

    def ask(self, token_ids: Sequence[Sequence[int]], references: Tensor) -> Asked:
        lengths = torch.tensor([len(ids) for ids in token_ids], device=references.device)
        moved = references.mean(dim=1) + lengths[:, None] / 100
        return Asked(functional.normalize(self.projection(moved), dim=-1), None)


@dataclass(frozen=True)
class ToyReranker:
    """A pair's score: the image's projection, times the length of the text."""

    model: ToyModel

    @property
    def config(self) -> ToyConfig:
        return self.model.config

    @property
    def encoder(self) -> ToyEncoder:
        return self.model.encoder

    def open(
        self,
        queries: FusedQueries,
        *,
        device: torch.device,
        memory: int | None,
        precision: Precision,
    ) -> Scorer:
        return _ToyScorer(self.model.to(device), queries)


@dataclass(frozen=True)
class _ToyScorer:
    model: ToyModel
    queries: FusedQueries

    @torch.inference_mode()
    def prepare(self, states: Tensor) -> Any:
        return self.model.projection(states.mean(dim=1)).sum(dim=1).cpu().numpy()

    def score(self, images: Any, query: np.ndarray, image: np.ndarray) -> np.ndarray:
        scores = (images[image] * self.queries.lengths[query]).astype(np.float32)
        require_finite(scores, "toy scores")
        found: np.ndarray = scores
        return found


def toy(kind: Literal["toy stage 1", "toy stage 2"]) -> ToyModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return ToyModel(ToyConfig(kind=kind)).eval()


@contextmanager
def toys_known() -> Iterator[None]:
    """The families of the product, and this one."""
    with pytest.MonkeyPatch.context() as patch:
        first = Family(1, ToyConfig, ToyModel, lambda model: model, precisions=["fp32"])
        second = Family(2, ToyConfig, ToyModel, ToyReranker, precisions=["fp32"])
        patch.setitem(FAMILIES, "toy stage 1", first)
        patch.setitem(FAMILIES, "toy stage 2", second)
        yield
