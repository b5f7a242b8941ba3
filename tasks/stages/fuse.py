"""z_t and the embedding of every question whose reference has been seen."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cir_core.layers.wordpiece import pad_tokens
from cir_core.ordering import require_finite
from cir_core.retrievers.blip.fusion import Stage1Model
from tasks.feed.image_tokens import Seen
from tasks.shards import Shard
from tasks.stages.questions import Questions

AT_ONCE = 2**11
"""Questions whose texts are sorted by length together, for less padding; one part's."""

Fusion = dict[str, Any]
"""A row of the table ``queries``, but for the query."""


class _Asked(NamedTuple):
    """A text of a question; ``place`` is its reference's in the batch of images."""

    place: int
    question: int
    token_ids: list[int]


@torch.inference_mode()
def fuse_seen(
    model: Stage1Model, seen: Seen, questions: Questions, shard: Shard, batch: int
) -> Iterator[list[Fusion]]:
    """The rows of each missing question of the batch of images, in the questions' order: one for
    each of its texts, none where its reference could not be decoded.

    What is fused together, ``batch`` texts at most, depends on the images alone, not on the parts,
    since together with other texts a number may have other last bits: where some of it is missing,
    all is fused again.
    """
    rows = [*seen.rows, *seen.problems]
    here = questions.of_pictures(min(rows), max(rows))
    for start in range(0, len(here), AT_ONCE):
        some = here[start : start + AT_ONCE]
        missing = shard.is_missing(some)
        if missing.any():
            fused = _fuse_each(model, seen, questions, some, batch)
            yield from (fused[one] for one in np.array(some)[missing].tolist())


def _fuse_each(
    model: Stage1Model, seen: Seen, questions: Questions, some: range, batch: int
) -> dict[int, list[Fusion]]:
    """By question; all rows of a question are here, since they have the same reference."""
    place = {row: number for number, row in enumerate(seen.rows)}
    asked = [
        _Asked(place[reference], question, token_ids)
        for question, reference in zip(some, questions.picture[some].tolist(), strict=True)
        if reference in place
        for token_ids in questions.texts[question]
    ]
    asked.sort(key=lambda one: len(one.token_ids))
    fused: dict[int, list[Fusion]] = defaultdict(list)
    for start in range(0, len(asked), batch):
        for fusion in _fuse(model, seen.tokens, asked[start : start + batch]):
            fused[fusion["question"]].append(fusion)
    return {question: _with_one_embedding(fused[question]) for question in some}


def _with_one_embedding(ways: list[Fusion]) -> list[Fusion]:
    """A question that is asked both ways has one embedding: their mean, of unit length."""
    if len(ways) <= 1:
        return ways
    mean = np.mean([one["embedding"] for one in ways], axis=0)
    return [one | {"embedding": mean / np.linalg.norm(mean)} for one in ways]


def _fuse(model: Stage1Model, image_tokens: Tensor, asked: list[_Asked]) -> list[Fusion]:
    texts = pad_tokens([one.token_ids for one in asked])
    device = image_tokens.device
    references = image_tokens[[one.place for one in asked]]
    z_t = model.fuse(texts.ids.to(device), texts.lengths.to(device), references)
    vectors = model.embed_queries(z_t).float().cpu().numpy()
    require_finite(vectors, "query embeddings")
    hidden = z_t.float().cpu().numpy()
    return [
        {
            "question": one.question,
            "embedding": vector,
            "token_ids": one.token_ids,
            "length": len(one.token_ids),
            "z_t": np.ascontiguousarray(state[: len(one.token_ids)], dtype="<f4").tobytes(),
        }
        for one, vector, state in zip(asked, vectors, hidden, strict=True)
    ]
