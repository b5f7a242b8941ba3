"""Texts of different lengths in one matrix, a row per token and none for padding; and what has to
know which rows belong together.

Everything but attention takes all rows at once. How rows attend depends on the machine, and is said
by a ``Packing``: one by one, or in padded groups.
"""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.rerankers.dual.cost import Sizes


class Texts(Protocol):
    """Packed texts, which follow each other in the order of their lengths."""

    @property
    def firsts(self) -> Int[Tensor, " text"]:
        """The row of each text's first token."""

    def see(
        self,
        sizes: Sizes,
        queries: Float[Tensor, "branch row width"],
        context: Float[Tensor, "branch token key_and_value"],
    ) -> Float[Tensor, "branch row width"]:
        """Attention of rows, all tokens or each text's first, to the context of their text's
        tokens."""


class Looking(Protocol):
    """Rows that look at images. Between ``together`` and ``apart`` they are in places, in an order
    of its own, perhaps with some that count for nothing."""

    def together(
        self, x: Float[Tensor, "branch row width"]
    ) -> Float[Tensor, "branch place width"]: ...

    def apart(
        self, x: Float[Tensor, "*branch place width"]
    ) -> Float[Tensor, "*branch row width"]: ...

    def see(
        self,
        sizes: Sizes,
        context: Float[Tensor, "key_or_value look width image_width"],
        asking: Float[Tensor, "all_looks place width"],
        image_tokens: Float[Tensor, "image patch image_width"],
    ) -> Float[Tensor, "place all_looks head channel"]:
        """What the looks at candidates, which are the last ones, see in theirs; room is left for
        the others."""


class Packed(NamedTuple):
    """A block: the rows of begun queries that its tokens are ``taken`` from, which texts they are,
    and which images its tokens, and its texts' firsts, look at."""

    taken: Int[Tensor, " token"]
    texts: Texts
    tokens: Looking
    firsts: Looking


class Packing(Protocol):
    """How rows are brought together."""

    def texts(self, lengths: Int[np.ndarray, " text"]) -> Texts:
        """Of ascending lengths; of no text, none may be asked for."""

    def block(
        self,
        lengths: Int[np.ndarray, " text"],
        image_of_text: Int[np.ndarray, " text"],
        taken: Int[np.ndarray, " token"],
    ) -> Packed:
        """The same texts, each of which looks at an image."""
