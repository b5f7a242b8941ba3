"""The losses of the three trainings."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

TEMPERATURE_RANGE = (0.001, 0.5)


def at_least_fp32(x: Tensor) -> Tensor:
    """What autocast left in bf16, in fp32: losses compare small differences."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def contrast(
    queries: Float[Tensor, "query embedding"],
    images: Float[Tensor, "image embedding"],
    temperature: Tensor,
    hidden: Bool[Tensor, "query image"] | None = None,
) -> Tensor:
    """InfoNCE (equation 1 of the paper): query i against all images, image i being its own.

    ``hidden`` marks images that must not count as negatives of a query. The learned temperature
    is kept in the published range.
    """
    logits = queries @ images.T / temperature.clamp(*TEMPERATURE_RANGE)
    if hidden is not None:
        logits = logits.masked_fill(hidden, float("-inf"))
    own = torch.arange(len(queries), device=queries.device)
    return functional.cross_entropy(logits, own)


def choice(scores: Float[Tensor, "query candidate"]) -> Tensor:
    """Cross-entropy of choosing candidate 0, the target (equation 6 of the paper). A candidate
    whose score is minus infinity does not compete."""
    own = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return functional.cross_entropy(scores, own)


def accuracy(scores: Float[Tensor, "query candidate"]) -> Tensor:
    """Share of queries whose candidate 0 has the highest score."""
    return (scores.argmax(dim=1) == 0).float().mean()
