"""Scores pairs by asking a vision-language model of each, candidate by candidate.

The model is causal, so what stands at the end of a row changes nothing before it: rows of a block
are filled up at their ends, each is read at its own last token, and no mask is needed. What prompts
begin with is computed once: of all of them, or, where the candidate comes first, of each candidate
with its picture.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.errors import PreflightError
from cir_core.layers.precision import DTYPES, rounded_products
from cir_core.layers.ragged import starts_of
from cir_core.memory import TOKENS_AT_ONCE, free_memory, is_out_of_memory
from cir_core.ordering import require_finite
from cir_core.ports import FusedQueries
from cir_core.rerankers.vlm.config import VlmConfig
from cir_core.rerankers.vlm.extra import transformers
from cir_core.rerankers.vlm.model import Picture, VlmModel, pictures_in
from cir_core.types import Precision

_log = logging.getLogger(__name__)


class Row(NamedTuple):
    """What a pair adds to the shared beginning: ids, positions [3, token], and its pictures."""

    ids: list[int]
    positions: Int[Tensor, "3 token"]
    pictures: list[Picture]


@dataclass
class Beginning:
    """Keys and values of each layer, of so many tokens."""

    tokens: int
    layers: list[tuple[Tensor, Tensor]]


class VlmScorer:
    """A ``Scorer``. Takes the model's language half to ``device``, in the precision asked for; the
    last product is in fp32 whatever it is. ``memory`` bounds the bytes of a block of pairs and
    changes no score; where it runs out all the same, blocks are halved from then on."""

    def __init__(
        self,
        model: VlmModel,
        queries: FusedQueries,
        *,
        device: torch.device,
        memory: int | None,
        precision: Precision,
    ) -> None:
        if queries.references is None and len(queries.lengths):
            raise ValueError("a vision-language model reads references")
        self._config, self._precision, self._device = model.config, precision, device
        self._dtype = DTYPES[precision]
        self._net = model.net.model
        self._net.language_model.to(device, self._dtype)
        self._answer = model.answer.to(device)
        self._queries, self._starts = queries, starts_of(queries.lengths)
        memory = free_memory(device) // 2 if memory is None else memory
        fitting = memory // (self._dtype.itemsize * numbers_per_token(model.config))
        self._most_tokens = max(1, min(fitting, TOKENS_AT_ONCE[device.type]))

    def prepare(self, states: Float[Tensor, "image token width"]) -> list[Picture]:
        return [self._put(picture) for picture in pictures_in(states)]

    @torch.inference_mode()
    def score(
        self,
        images: list[Picture],
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> Float[np.ndarray, " pair"]:
        scores = np.empty(len(query_of_pair), dtype=np.float32)
        lengths = self._queries.lengths[query_of_pair]
        order = np.lexsort((lengths, image_of_pair))
        edges = np.flatnonzero(np.diff(image_of_pair[order])) + 1
        for mine in np.split(order, edges) if len(order) else []:
            candidate = images[image_of_pair[mine[0]]]
            scores[mine] = self._score_image(candidate, query_of_pair[mine])
        require_finite(scores, "stage 2 scores")
        return scores

    def _score_image(
        self, candidate: Picture, queries: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        """Of one candidate, in blocks that fit."""
        beginning = self._begin(candidate) if self._config.candidate_first else self._shared
        rows = (self._row(int(one), candidate) for one in queries)
        blocks = self._blocks(rows, beginning)
        return np.concatenate([self._score_block(block, beginning) for block in blocks])

    def _blocks(self, rows: Iterable[Row], beginning: Beginning) -> Iterator[list[Row]]:
        """As many as fit at a time. Each is made when it is its turn, since it holds a picture."""
        block: list[Row] = []
        longest = 0
        for row in rows:
            longest = max(longest, len(row.ids) + beginning.tokens)
            if block and longest * (len(block) + 1) > self._most_tokens:
                yield block
                block, longest = [], len(row.ids) + beginning.tokens
            block.append(row)
        if block:
            yield block

    def _score_block(self, rows: Sequence[Row], beginning: Beginning) -> Float[np.ndarray, " row"]:
        """In smaller ones when memory was too small for it."""
        found = self._try(rows, beginning)
        if found is not None:
            return found
        self._halve(len(rows), max(len(row.ids) for row in rows) + beginning.tokens)
        blocks = self._blocks(rows, beginning)
        return np.concatenate([self._score_block(block, beginning) for block in blocks])

    def _try(self, rows: Sequence[Row], beginning: Beginning) -> Float[np.ndarray, " row"] | None:
        """None when memory was too small."""
        try:
            last = self._last_states(rows, beginning)
            found: np.ndarray = (last.float() * self._answer).sum(dim=-1).cpu().numpy()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        return found

    def _halve(self, rows: int, tokens: int) -> None:
        torch.cuda.empty_cache()
        if rows == 1:
            raise PreflightError(
                "the memory is too small to ask of a single pair",
                cause=f"a prompt of {tokens} tokens does not fit",
                remedy="free memory, pass --precision bf16, set a smaller pixels.most in the "
                "model's config.json, or --device cpu",
            )
        self._most_tokens = max(1, rows // 2) * tokens
        _log.warning("out of memory: going on with %d pairs at a time", max(1, rows // 2))

    def _last_states(self, rows: Sequence[Row], beginning: Beginning) -> Float[Tensor, "row width"]:
        """Each row's last hidden state, after the final norm."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self._config.prompt.tail[-1])
        positions = torch.zeros((3, len(rows), longest), dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            positions[:, number, : len(row.ids)] = row.positions
        pictures = list(chain.from_iterable(row.pictures for row in rows))
        states, _ = self._run(ids, positions, pictures, beginning)
        last = torch.tensor([len(row.ids) - 1 for row in rows], device=self._device)
        return states[torch.arange(len(rows), device=self._device), last]

    def _run(
        self,
        ids: Int[Tensor, "row token"],
        positions: Int[Tensor, "3 row token"],
        pictures: Sequence[Picture],
        beginning: Beginning | None,
    ) -> tuple[Float[Tensor, "row token width"], Any]:
        """Hidden states, and the cache of keys and values, by transformers' own forward."""
        layers = beginning.layers if beginning else []
        repeated = [tuple(one.expand(len(ids), -1, -1, -1) for one in layer) for layer in layers]
        cache = transformers().DynamicCache(repeated or None)
        with rounded_products(self._precision):
            out = self._net(
                input_ids=ids.to(self._device),
                position_ids=positions.to(self._device),
                past_key_values=cache,
                use_cache=True,
                mm_encoder_outputs={"image": self._seen(pictures)} if pictures else None,
                return_dict=True,
            )
        return out.last_hidden_state, out.past_key_values

    def _seen(self, pictures: Sequence[Picture]) -> SimpleNamespace:
        """As transformers' vision encoder would tell it."""
        tower = self._config.tower
        each = [self._put(one).tokens.split(tower.out, dim=-1) for one in pictures]
        first, *deeper = zip(*each, strict=True)
        return SimpleNamespace(pooler_output=first, deepstack_features=deeper)

    @cached_property
    def _shared(self) -> Beginning:
        """Of all prompts: the words before the first picture."""
        return self._begin(None)

    def _begin(self, candidate: Picture | None) -> Beginning:
        """The words before the first picture, and, if the candidate's is first, that picture."""
        prompt = self._config.prompt
        words = list(prompt.head[: prompt.head.index(prompt.image)])
        pictures = [] if candidate is None else [candidate]
        ids = words + [prompt.image] * len(pictures)
        tokens, positions = self._expanded(ids, pictures)
        _, cache = self._run(torch.tensor([tokens]), positions[:, None], pictures, None)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        return Beginning(len(tokens), layers)

    def _row(self, query: int, candidate: Picture) -> Row:
        config, start = self._config, self._starts[query]
        text = self._queries.token_ids[start : start + self._queries.lengths[query]]
        shown = {"candidate": candidate, "reference": self._reference(query)}
        pictures = [shown[whose] for whose in config.form.pictures]
        ids, positions = self._expanded(config.prompt.whole(text.tolist()), pictures)
        begun = config.prompt.head.index(config.prompt.image)
        if config.candidate_first:
            begun += len(pictures.pop(0).tokens)
        return Row(ids[begun:], positions[:, begun:], pictures)

    def _reference(self, query: int) -> Picture:
        references = self._queries.references
        assert references is not None, "asked for at the beginning"
        states = references.states(references.of_query[query : query + 1])
        return pictures_in(states)[0]

    def _expanded(
        self, ids: Sequence[int], pictures: Sequence[Picture]
    ) -> tuple[list[int], Int[Tensor, "3 token"]]:
        """The ids with as many of each picture as it has tokens, and transformers' positions."""
        image, left = self._config.prompt.image, iter(pictures)
        counts = [len(next(left).tokens) if one == image else 1 for one in ids]
        expanded = list(chain.from_iterable([one] * n for one, n in zip(ids, counts, strict=True)))
        merge = self._config.vision["spatial_merge_size"]
        grids = [(1, merge * one.rows, merge * one.columns) for one in pictures]
        whole = torch.tensor([expanded])
        positions, _ = self._net.get_rope_index(
            whole,
            mm_token_type_ids=(whole == image).int(),
            image_grid_thw=torch.tensor(grids) if grids else None,
        )
        return expanded, positions[:, 0]

    def _put(self, picture: Picture) -> Picture:
        return picture._replace(tokens=picture.tokens.to(self._device, self._dtype))


def numbers_per_token(config: VlmConfig) -> int:
    """That exist at once for a token of a block: keys and values of all layers, and in one layer
    the residual, a normed copy, queries, keys, values, what is seen, and three of the hidden width
    of the feed-forward."""
    text = config.text
    heads = text["num_attention_heads"]
    head = text.get("head_dim") or text["hidden_size"] // heads
    key_values = 2 * head * (text["num_key_value_heads"] or heads)
    layer = 4 * text["hidden_size"] + 3 * heads * head + key_values + 3 * text["intermediate_size"]
    return int(text["num_hidden_layers"] * key_values + layer)
