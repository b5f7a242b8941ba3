"""A sample of a run's work, and how long each part of it takes here, by the code that runs it."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.layers.preprocess import Preprocess
from cir_core.planning.effort import Workload
from cir_core.ports import FusedQueries, ImageEncoder, Load, RerankerConfig, Retriever, Scorer
from cir_core.search.candidates import NONE_REMOVED
from cir_core.search.choice import IndexChoice, IndexKind
from cir_core.search.indexes import open_index
from cir_core.search.scores import QUERIES_AT_ONCE, Gallery
from tasks.feed.decode import load_crop
from tasks.feed.image_tokens import Pictures, Seen, compute_tokens
from tasks.feed.pixels import image_files
from tasks.shards import Part, Shard
from tasks.stages.fuse import fuse_each
from tasks.stages.questions import Questions
from tasks.stages.scoring import Pairs
from tasks.stages.shard_scoring import score_shard

SECONDS = 1.5
"""For each speed, after its warm-up: long enough to even out a busy machine's moods, a few percent
of any run worth planning."""

MOST_IMAGES = 4096
"""Of the sample; a GPU is through with them in the time it takes to start."""

MOST_PAIRS = 256
"""Of an image in a sample: beyond, its keys and values are a small part of the work."""

SEARCHED = 20_000
"""Images that a sample search goes through: more than the caches hold."""

TEXTS_SAMPLED = 512
"""At most, that scoring is timed with."""


@dataclass(frozen=True)
class Sample:
    """What the run will be like: token ids of some texts, the pairs of an image that has any, and
    the images and candidates of a search."""

    token_ids: Sequence[list[int]]
    pairs_per_image: int
    gallery: int
    k: int
    index: IndexKind

    @classmethod
    def of(cls, work: Workload, *, k: int, index: IndexKind) -> Self:
        """Of this work; its texts are so many that every length occurs as often as it does."""
        every = max(1, -(-len(work.token_ids) // TEXTS_SAMPLED))
        pairs, images = work.expected.pairs, work.expected.images
        return cls(
            token_ids=[list(ids) for ids in work.token_ids[::every]],
            pairs_per_image=max(1, round(pairs / max(1.0, images))),
            gallery=work.compared // max(1, work.queries),
            k=k,
            index=index,
        )


def drawn(images: int) -> list[int]:
    """Rows of the sample, in random order, since a folder often begins with images of a kind; all
    of them once before any again."""
    rounds = -(-MOST_IMAGES // max(1, images))
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(images) for _ in range(rounds)])
    return [int(row) for row in rows[:MOST_IMAGES]]


def see_sample(
    pictures: Pictures, encoder: ImageEncoder, rows: list[int]
) -> tuple[float, float, Seen]:
    """Seconds until the first image, seconds of each further one, and some images.

    Batches double in size up to the run's. Images are seen until the time is up; the last batch is
    what is left.
    """
    sizes = _doubling(pictures.machine.batch)
    plan, start = [], 0
    while start < len(rows):
        plan.append(rows[start : start + next(sizes)])
        start += len(plan[-1])
    began = time.perf_counter()
    with compute_tokens(pictures, encoder, plan) as images:
        last = next(images)
        fed = time.perf_counter()
        count = 0
        for batch, seen in zip(plan[1:], images, strict=True):
            count += len(batch)
            last = seen if seen.rows else last
            _wait(last.tokens)
            if time.perf_counter() - fed > SECONDS:
                break
        tokens = last.tokens.clone()  # what it is in is used again
        found = Seen(range(len(tokens)), tokens, {})
        return fed - began, (time.perf_counter() - fed) / count, found


def time_pictures(pictures: Pictures, preprocess: Preprocess, rows: list[int]) -> float:
    """Seconds to decode one, in turn with nothing else."""
    files = image_files(pictures.table())
    crop = np.empty(preprocess.shape, dtype=np.uint8)
    began, spent = time.perf_counter(), []
    for row in rows:
        load_crop(crop, pictures.root, files[row], preprocess)
        spent.append(time.perf_counter() - began)
        if spent[-1] > SECONDS / 10:
            break
    return spent[-1] / len(spent)


def time_fusion(model: Retriever, sample: Sample, seen: Seen, batch: int) -> float:
    texts = sorted(sample.token_ids, key=len)

    @torch.inference_mode()
    def fuse(count: int) -> int:
        some = [texts[row] for row in np.linspace(0, len(texts) - 1, count).astype(int)]
        questions = Questions(
            picture=np.arange(count) % len(seen.rows),
            texts=[[token_ids] for token_ids in some],
            wordings=[[""]] * count,
            query_ids=[[""]] * count,
            too_long={},
        )
        fuse_each(model, seen, questions, np.arange(count), batch)
        return model.config.asking_flops(np.array([len(token_ids) for token_ids in some]))

    return _seconds_each(fuse, most=batch)


@dataclass(frozen=True)
class _SeenReferences:
    """Some images, as the references of queries."""

    seen: Seen
    of_query: Int[np.ndarray, " query"]

    def states(self, references: Int[np.ndarray, " some"]) -> Float[Tensor, "some ..."]:
        return self.seen.tokens[torch.from_numpy(references)].float().cpu()


def random_queries(config: RerankerConfig, sample: Sample, seen: Seen) -> FusedQueries:
    """As long as the sample's; a reranker that reads texts itself gets as many words."""
    rng, width = np.random.default_rng(0), config.state_width
    if width:
        z_t = [rng.standard_normal((len(ids), width), dtype=np.float32) for ids in sample.token_ids]
        return FusedQueries.of(z_t, sample.token_ids)
    texts = [" ".join(["red"] * len(ids)) for ids in sample.token_ids]
    references = _SeenReferences(seen, np.arange(len(texts)) % len(seen.rows))
    return FusedQueries.of([], config.tokenizer()(texts), texts=texts, references=references)


def time_scoring(
    config: RerankerConfig, scorer: Scorer, queries: FusedQueries, sample: Sample, seen: Seen
) -> float:
    rng, images, lengths = np.random.default_rng(0), len(seen.rows), queries.lengths
    each = min(sample.pairs_per_image, MOST_PAIRS)

    def score(count: int) -> float:
        picture = np.sort(np.arange(count) // each % images)
        text = rng.integers(0, len(lengths), count)
        unknown = np.full(count, np.nan)
        pairs = Pairs(np.arange(count), picture, np.arange(count + 1), text, unknown)
        part = Part("sample", range(count), count)
        shard = Shard(part.items, [part], [part])
        deque(score_shard(scorer, [seen], pairs, shard, _Silent()), maxlen=0)
        return config.scoring_flops(Load.of(lengths[text], picture, images=images))

    score(1)  # begins the queries
    return _seconds_each(score, most=each * images)


def time_search(sample: Sample, width: int) -> tuple[float, float]:
    """Seconds of a gallery image to build the index, and of a query and a gallery image to search
    it. FAISS's lists are as many as suit the sample."""
    rng = np.random.default_rng(0)
    images, queries = (
        rng.standard_normal((count, width), dtype=np.float32)
        for count in (min(sample.gallery, SEARCHED), QUERIES_AT_ONCE)
    )
    began = time.perf_counter()
    index = open_index(Gallery(images), IndexChoice(sample.index))
    built = time.perf_counter() - began

    def search(count: int) -> int:
        removed = np.full(count, NONE_REMOVED)
        index.search(queries[:count], k=sample.k, removed=removed)
        return count * len(images)

    return built / len(images), _seconds_each(search, most=QUERIES_AT_ONCE)


def _seconds_each(work: Callable[[int], float], *, most: int) -> float:
    """Seconds of one unit, of which ``work`` says how many it did with a given size.

    Sizes double while that is quick; only the largest is timed, and repeated until the time is up.
    """
    sizes = _doubling(most)
    size, took, done = next(sizes), 0.0, 0.0
    while took < SECONDS:
        began = time.perf_counter()
        units = work(size)
        spent = time.perf_counter() - began
        if size < most and spent < SECONDS:
            size = next(sizes)
        else:
            took, done = took + spent, done + units
    return took / done


class _Silent:
    """A counter that tells nobody."""

    def update(self, n: int) -> None: ...


def _doubling(most: int) -> Iterator[int]:
    size = 1
    while True:
        yield min(size, most)
        size *= 2


def _wait(result: Tensor) -> None:
    """Until a GPU has computed it: one number of it is fetched."""
    result.flatten()[:1].cpu()
