"""Stage 2 asked for the missing scores of a gallery shard, call by call."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from cir_core.ports import Launching, Scorer
from tasks.feed.image_tokens import Seen
from tasks.feed.lookahead import ahead
from tasks.progress import Counter
from tasks.shards import Shard
from tasks.stages.scoring import Pairs

AT_ONCE = 2**11
"""Questions of pictures that are scored together, and then told: with 14 tokens a text, as
Fashion-IQ's, one block of the engine on a GPU, so that no smaller blocks come of it."""


@torch.inference_mode()
def score_shard(
    scorer: Scorer, batches: Iterable[Seen], pairs: Pairs, shard: Shard, counter: Counter
) -> Iterator[np.ndarray]:
    """The missing scores of one shard's pairs, in order; image tokens are in memory for a batch of
    images at a time, on a GPU for two.

    What is scored together depends on the batch and on what is known alone, not on the parts, since
    together with other pairs a score may have other last bits: where some of it is missing, all is
    scored again.
    """
    many = scorer.calls_under_way if isinstance(scorer, Launching) else 1
    for scores in ahead(partial(_begin, scorer), _calls(scorer, batches, pairs, shard), many):
        counter.update(len(scores))
        yield scores


class _Call(NamedTuple):
    """Pairs of prepared images, and which of their scores are missing."""

    images: Any
    text: np.ndarray
    image: np.ndarray
    missing: np.ndarray


@dataclass(frozen=True)
class _Asked:
    """A scorer, asked."""

    call: _Call
    scores: Callable[[], np.ndarray]

    def result(self) -> np.ndarray:
        return self.scores()[self.call.missing]


def _begin(scorer: Scorer, call: _Call) -> _Asked:
    pairs = call.images, call.text, call.image
    if isinstance(scorer, Launching):
        return _Asked(call, scorer.launch(*pairs).result)
    return _Asked(call, partial(scorer.score, *pairs))


def _calls(scorer: Scorer, batches: Iterable[Seen], pairs: Pairs, shard: Shard) -> Iterator[_Call]:
    for seen in batches:
        for problem in seen.problems.values():
            raise problem  # it was decoded once already, when it was encoded
        batch, images = left_of(pairs, seen.rows), scorer.prepare(seen.tokens)
        for start in range(0, len(batch), AT_ONCE):
            some = batch[start : start + AT_ONCE]
            texts = pairs.texts_each(some)
            missing = np.repeat(shard.is_missing(some), texts)
            if missing.any():
                place = np.searchsorted(seen.rows, np.repeat(pairs.picture[some], texts))
                yield _Call(images, pairs.text[pairs.of_numbers(some)], place, missing)


def left_of(pairs: Pairs, pictures: Sequence[int]) -> np.ndarray:
    """What is to be scored of consecutive pictures."""
    return pairs.left(pairs.of_pictures(pictures[0], pictures[-1]))
