"""Scores every planned pair with stage 2, candidate-major.

What pairs share is done once: layer 0's self-attention for a query, a layer's keys and values for
an image. Texts are packed without padding, and the last layer computes only what the score reads.
"""

import logging
from collections.abc import Callable
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.layers.attention import varied_shapes
from cir_core.layers.precision import DTYPES, require_precision, rounded_products
from cir_core.layers.ragged import rows_of, starts_of
from cir_core.memory import is_out_of_memory
from cir_core.ordering import require_finite
from cir_core.ports import FusedQueries
from cir_core.rerankers.dual.blocks import Block, plan_blocks
from cir_core.rerankers.dual.budget import Budget
from cir_core.rerankers.dual.grouping import Grouped
from cir_core.rerankers.dual.layers import (
    QueryContext,
    attend_others,
    attend_self,
    feed_forward,
    head_reads,
    read_scores,
)
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.dual.one_by_one import ByImage, OneByOne
from cir_core.rerankers.dual.packing import Packing
from cir_core.rerankers.dual.tiles import longest_tile
from cir_core.rerankers.dual.transfer import Fetched
from cir_core.rerankers.dual.weights import prepare_weights
from cir_core.types import Precision

_log = logging.getLogger(__name__)

GROUPED = {"cpu": False, "cuda": True}
"""By the type of the device, whether rows attend in padded groups: a GPU waits for calls, a CPU for
products."""


Reading = Callable[[Float[Tensor, "branch pair width"]], Float[Tensor, "pair ..."]]
"""What is wanted of a block: of all branches' first tokens, in fp32."""


class Begun(NamedTuple):
    """Queries after layer 0's self-attention, packed, and the row where each of them starts."""

    states: Float[Tensor, "branch token width"]
    starts: Int[np.ndarray, " query"]


class Launched(NamedTuple):
    """What is being read of pairs, in this order, and how it is told."""

    order: Int[np.ndarray, " pair"]
    values: Fetched
    what: str

    def result(self) -> Float[np.ndarray, "pair ..."]:
        """Pair after pair. Waits, and raises NonFiniteError."""
        found = self.values.numpy()
        values = np.empty_like(found)
        values[self.order] = found
        require_finite(values, self.what)
        return values


class RerankEngine:
    """A ``Scorer`` for one model and the queries that were fused for it.

    It has copies of the model's weights on ``device``, all but the ViT's. ``memory`` bounds the
    bytes of its work (see ``Budget``); it changes time and no score. Where memory runs out all the
    same, blocks are halved from then on, and PreflightError is raised when one pair is too many.
    ``precision`` changes time and scores; the score head computes in fp32 whatever it is, since
    coarser scores would tie. ``grouped`` says how rows attend (``Packing``) where not the device is
    to say it, and changes time and last bits. Raises UsageError for a precision that the device
    does not have.
    """

    def __init__(
        self,
        model: Stage2Model,
        queries: FusedQueries,
        *,
        device: torch.device,
        memory: int | None = None,
        precision: Precision = "fp32",
        grouped: bool | None = None,
    ) -> None:
        require_precision(precision, device)
        self._device, self._precision, self._dtype = device, precision, DTYPES[precision]
        grouped = GROUPED[device.type] if grouped is None else grouped
        self._queries, self._starts = queries, starts_of(queries.lengths)
        self._sizes = model.config.sizes
        self._weights = prepare_weights(model, device, self._dtype)
        self._budget = Budget(
            memory,
            self._sizes,
            query_tokens=len(queries.token_ids),
            device=device,
            dtype=self._dtype,
            tile=longest_tile(queries.lengths) if grouped else None,
        )
        self._packing: Packing = OneByOne(device)
        if grouped:
            self._packing = Grouped(device, self._dtype, self._sizes, self._budget.most_images)

    def prepare(
        self, states: Float[Tensor, "image patch image_width"]
    ) -> Float[Tensor, "image patch image_width"]:
        """On its device, in its precision."""
        return states.to(self._device, self._dtype)

    def score(
        self,
        images: Float[Tensor, "image patch image_width"],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> Float[np.ndarray, " pair"]:
        return self.launch(images, query_of_pair, image_of_pair).result()

    @property
    def calls_under_way(self) -> int:
        return 2 if self._device.type == "cuda" else 1

    def launch(
        self,
        images: Float[Tensor, "image patch image_width"],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> "Launched":
        asked = images, query_of_pair, image_of_pair
        return self._launch(*asked, partial(read_scores, self._weights), "stage 2 scores")

    def states(
        self,
        images: Float[Tensor, "image patch image_width"],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> Float[np.ndarray, "pair branches_width"]:
        """What the head reads in place of its scores: each pair's first token after the last layer,
        branch beside branch, in fp32. Otherwise as ``score``."""
        asked = images, query_of_pair, image_of_pair
        return self._launch(*asked, head_reads, "what stage 2's scores are read from").result()

    @torch.inference_mode()
    def _launch(
        self,
        images: Float[Tensor, "image patch image_width"],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
        read: Reading,
        what: str,
    ) -> "Launched":
        """A GPU's memory runs out when a block is launched, not when it is computed."""
        lengths = self._queries.lengths[query_of_pair]

        def plan(pairs: Block) -> list[Block]:
            most_tokens = self._budget.most_tokens
            blocks = plan_blocks(image_of_pair[pairs], lengths[pairs], most_tokens)
            return [pairs[block] for block in reversed(blocks)]

        blocks, order = plan(np.arange(len(query_of_pair))), list[Block]()
        launched = list[Tensor]()
        while blocks:
            pairs = blocks.pop()
            found = self._try_block(images, query_of_pair[pairs], image_of_pair[pairs], read)
            if found is None:  # it did not fit, and the budget is smaller now
                blocks = plan(np.concatenate([pairs, *reversed(blocks)]))
            else:
                order.append(pairs)
                launched.append(found)
        if not order:  # of no pairs
            none = self._weights.word.new_empty(self._sizes.branches, 0, self._sizes.width)
            order, launched = [np.arange(0)], [read(none)]
        return Launched(np.concatenate(order), Fetched.of(torch.cat(launched)), what)

    def _try_block(
        self,
        image_tokens: Float[Tensor, "image patch image_width"],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
        read: Reading,
    ) -> Float[Tensor, "pair ..."] | None:
        """What is read of the block, launched; None when memory was too small for it, and the
        budget is halved."""
        try:
            with rounded_products(self._precision), varied_shapes():
                x = self._read_block(image_tokens, query_of_pair, image_of_pair)
            return read(x)  # outside: fp32 in tf32, too
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        tokens = int(self._queries.lengths[query_of_pair].sum())
        self._budget.halve(tokens, pairs=len(query_of_pair))
        torch.cuda.empty_cache()  # outside of except: the failed block's tensors are free by now
        return None

    def _read_block(
        self,
        image_tokens: Float[Tensor, "image patch image_width"],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> Float[Tensor, "branch pair width"]:
        """What the head reads, of pairs that are sorted by the length of their texts."""
        lengths = self._queries.lengths[query_of_pair]
        begun = self._begin(np.unique(query_of_pair)) if self._kept is None else self._kept
        taken = rows_of(begun.starts[query_of_pair], lengths)
        packed = self._packing.block(lengths, image_of_pair, taken)
        own = self._own_context(query_of_pair, lengths)
        texts, x = packed.texts, begun.states.index_select(1, packed.taken)
        for number, layer in enumerate(self._weights.layers, start=1):
            last = number == self._sizes.layers
            if number > 1:
                x = attend_self(layer, self._sizes, x, texts, firsts_only=last)
            elif last:
                x = x.index_select(1, texts.firsts)
            looking = packed.firsts if last else packed.tokens
            x = attend_others(layer, self._sizes, x, texts, looking, image_tokens, own)
            x = feed_forward(layer, x)
        return x

    @cached_property
    def _kept(self) -> Begun | None:
        """All queries, where memory has room for them."""
        if not self._budget.keeps_queries:
            return None
        try:
            return self._begin(np.arange(len(self._queries.lengths)))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        _log.warning("out of memory: queries are begun again for each block")
        return None

    def _begin(self, queries: Int[np.ndarray, " some"]) -> Begun:
        """Layer 0's self-attention, which no candidate can change."""
        lengths = self._queries.lengths[queries]
        starts = np.zeros(len(self._queries.lengths), dtype=np.int64)
        states = torch.empty(
            self._sizes.branches,
            lengths.sum(),
            self._sizes.width,
            dtype=self._dtype,
            device=self._device,
        )
        filled = 0
        for block in plan_blocks(np.zeros_like(queries), lengths, self._budget.most_tokens):
            starts[queries[block]] = filled + starts_of(lengths[block])
            tokens = slice(filled, filled + int(lengths[block].sum()))
            states[:, tokens] = self._begin_block(queries[block])
            filled = tokens.stop
        return Begun(states, starts)

    def _begin_block(
        self, queries: Int[np.ndarray, " some"]
    ) -> Float[Tensor, "branch token width"]:
        texts = self._packing.texts(self._queries.lengths[queries])
        x, first = self._inputs(queries), self._weights.layers[0]
        return attend_self(first, self._sizes, x, texts, firsts_only=False)

    def _inputs(self, queries: Int[np.ndarray, " some"]) -> Float[Tensor, "branch token width"]:
        """What each branch begins as: z_t, or the text's embeddings."""
        lengths, weights = self._queries.lengths[queries], self._weights
        rows = rows_of(self._starts[queries], lengths)
        words = weights.word[self._put(self._queries.token_ids[rows])]
        words += weights.position[self._put(rows_of(np.zeros_like(lengths), lengths))]
        text = weights.embedding_norm(words)
        return torch.stack(
            [self._z_t(rows) if one == "z_t" else text for one in self._sizes.variant.beginnings]
        )

    def _own_context(
        self, queries: Int[np.ndarray, " pair"], lengths: Int[np.ndarray, " pair"]
    ) -> QueryContext:
        """What the tokens of the pairs' queries look at beside candidates."""
        if self._sizes.looks_at("z_t"):
            return QueryContext(z_t=self._z_t(rows_of(self._starts[queries], lengths)))
        if not self._sizes.looks_at("reference"):
            return QueryContext()
        assert self._queries.references is not None, "this variant looks at references"
        given = self._queries.references
        some, place = np.unique(given.of_query[queries], return_inverse=True)
        states = given.states(some).to(self._device, self._dtype)
        return QueryContext(
            references=states,
            of_tokens=ByImage(np.repeat(place, lengths), self._device),
            of_texts=ByImage(place, self._device),
        )

    def _z_t(self, tokens: Int[np.ndarray, " token"]) -> Float[Tensor, "token width"]:
        return torch.from_numpy(self._queries.z_t[tokens]).to(self._device, self._dtype)

    def _put(self, indices: Int[np.ndarray, " row"]) -> Int[Tensor, " row"]:
        return torch.from_numpy(indices).to(self._device)
