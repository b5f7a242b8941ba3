"""Pre-norm transformer blocks, as CLIP's and SigLIP's two towers are made of."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from cir_core.layers.attention import Attention

Activation = Literal["gelu", "quick_gelu", "gelu_pytorch_tanh"]
"""By the names that Hugging Face's configs give them."""


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's: x σ(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "quick_gelu": quick_gelu,
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
}


class Mlp(nn.Module):
    """Position-wise: contract(activation(expand(x)))."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        changed: Tensor = self.contract(self.activation(self.expand(x)))
        return changed


class Block(nn.Module):
    """x + attention(norm(x)), and of that, + mlp(norm(.))."""

    def __init__(
        self, width: int, heads: int, hidden: int, *, activation: Activation, epsilon: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.attention = Attention(width, heads, width, dropout=0.0)
        self.mlp_norm = nn.LayerNorm(width, eps=epsilon)
        self.mlp = Mlp(width, hidden, activation)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        mask: Bool[Tensor, "token token"] | None = None,
    ) -> Float[Tensor, "batch token width"]:
        """``mask`` is True where a token (row) may look at another."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, self.attention.project(normed), mask)
        seen: Tensor = x + self.mlp(self.mlp_norm(x))
        return seen


def block_flops(width: int, hidden: int, tokens: int, looks: int) -> int:
    """Of one block over so many tokens, which look at others so often in all."""
    return 2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * looks * width
