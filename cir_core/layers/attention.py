"""Multi-head attention and feed-forward, the two blocks every text layer is made of."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

Module = TypeVar("Module", bound=nn.Module)
Result = TypeVar("Result")

BERT_EPSILON = 1e-12
"""LayerNorm epsilon of the text encoders (the ViT's is 1e-6)."""


@contextmanager
def varied_shapes() -> Iterator[None]:
    """Inside, a GPU does not attend by cuDNN, which plans anew for each shape: of 26 s in which an
    H200 re-ranked, it did so for 21. Of one shape alone, as in the ViT, it is the fastest."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


class KeysValues(NamedTuple):
    """Projected context of one attention: all that a query needs to know of it."""

    keys: Float[Tensor, "batch head context channel"]
    values: Float[Tensor, "batch head context channel"]

    def select(self, index: Int[Tensor, " pair"]) -> "KeysValues":
        """One row per pair; a single context is broadcast instead of copied."""
        if len(self.keys) == 1:
            shape = (len(index), -1, -1, -1)
            return KeysValues(self.keys.expand(shape), self.values.expand(shape))
        return KeysValues(self.keys[index], self.values[index])


class Attention(nn.Module):
    """Scaled dot-product attention of ``x`` over a context, with output projection.

    ``context_width`` differs from ``width`` in cross-attention to image tokens.
    """

    def __init__(self, width: int, heads: int, context_width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.output = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project(self, context: Float[Tensor, "batch context width"]) -> KeysValues:
        return KeysValues(self._split(self.key(context)), self._split(self.value(context)))

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        context: KeysValues,
        mask: Bool[Tensor, "batch 1 1 context"] | None = None,
    ) -> Float[Tensor, "batch token width"]:
        with varied_shapes():
            attended = functional.scaled_dot_product_attention(
                self._split(self.query(x)),
                context.keys,
                context.values,
                attn_mask=mask,
                dropout_p=self.dropout if self.training else 0.0,
            )
        return self.output(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """BERT's position-wise MLP with residual and LayerNorm: norm(x + contract(gelu(expand(x))))."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=BERT_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        hidden = functional.gelu(self.expand(x))
        return self.norm(x + self.dropout(self.contract(hidden)))


class TextEmbeddings(nn.Module):
    """Word plus position embedding, normalised; BLIP has no token types."""

    def __init__(self, vocabulary_size: int, width: int, positions: int, dropout: float) -> None:
        super().__init__()
        self.word = nn.Embedding(vocabulary_size, width)
        self.position = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width, eps=BERT_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_ids: Int[Tensor, "batch token"]) -> Float[Tensor, "batch token width"]:
        position = self.position.weight[: token_ids.shape[1]]
        return self.dropout(self.norm(self.word(token_ids) + position))


def token_mask(
    lengths: Int[Tensor, " batch"], padded_length: int
) -> Bool[Tensor, "batch 1 1 token"]:
    """True where a token is real; broadcast over heads and query positions."""
    positions = torch.arange(padded_length, device=lengths.device)
    return (positions < lengths[:, None])[:, None, None, :]


def run_layer(layer: Callable[..., Result], *arguments: Any, again: bool) -> Result:
    """The layer's output; with ``again``, and where gradients are wanted, its activations are not
    kept but computed again on the way back (activation checkpointing)."""
    if again and torch.is_grad_enabled():
        recomputed: Result = checkpoint(layer, *arguments, use_reentrant=False)
        return recomputed
    return layer(*arguments)


def module_list(modules: Iterable[Module]) -> Sequence[Module]:
    """An ``nn.ModuleList`` that keeps its elements' type for the checker."""
    return cast("Sequence[Module]", nn.ModuleList(modules))
