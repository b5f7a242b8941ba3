"""How fast this machine is with these models: each part of a run on a sample of its own work."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cir_core.layers.preprocess import Preprocess
from cir_core.planning.effort import Speeds, Workload
from cir_core.ports import FusedQueries, ImageEncoder, Load, RerankerConfig, Retriever, Scorer
from cir_core.search.candidates import NONE_REMOVED
from cir_core.search.choice import IndexChoice, IndexKind
from cir_core.search.indexes import open_index
from cir_core.search.scores import QUERIES_AT_ONCE, Gallery
from cir_core.types import Precision
from tasks.feed.decode import load_crop
from tasks.feed.image_tokens import Pictures, Seen, compute_tokens
from tasks.feed.pixels import image_files
from tasks.models.opening import open_reranker, open_retriever
from tasks.shards import Part, Shard
from tasks.stages.fuse import fuse_each
from tasks.stages.questions import Questions
from tasks.stages.rerank import open_scorer, score_shard
from tasks.stages.scoring import Pairs

SECONDS = 1.5
"""For each speed, after its warm-up: long enough to even out a busy machine's moods, a few percent
of any run worth planning."""

MOST_IMAGES = 4096
"""Of the sample; a GPU is through with them in the time it takes to start."""

MOST_PAIRS = 256
"""Of an image in a sample: beyond, its keys and values are a small part of the work."""

TEXTS_SAMPLED = 512
"""At most, that scoring is timed with."""

SEARCHED = 20_000
"""Images that a sample search goes through: more than the caches hold."""

_log = logging.getLogger(__name__)


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


def calibrate(
    pictures: Pictures, stage1: Path, stage2: Path | None, sample: Sample, *, precision: Precision
) -> Speeds:
    """Open the models and time a sample of each part, by the code that runs it; nothing is
    written. Without a ``stage2``, stage 1 is timed alone. Takes a second or two for each of four
    parts, or as long as a few images and pairs take a slow machine.

    Decoding and the ViT are timed on images drawn from all of the split; z_t and embeddings are
    random, since they change no time. Without images or texts there is nothing to time, and what is
    not timed is 0. Raises as ``open_retriever`` and ``feed_pixels``.
    """
    _log.info("timing samples of the run")
    machine = pictures.machine
    began = time.perf_counter()
    first = open_retriever(stage1).to(machine.device)
    speeds = Speeds(open_stage1=time.perf_counter() - began)
    rows = _drawn(pictures.table().num_rows)
    if not rows:
        return speeds
    feed, image, seen = _see_sample(pictures, first.encoder, rows)
    picture = _time_pictures(pictures, first.config.pictures, rows)
    speeds = replace(speeds, feed=feed, image=image, picture=picture)
    if sample.gallery:
        index, search = _time_search(sample, first.config.embedding)
        speeds = replace(speeds, index=index, search=search)
    if not (sample.token_ids and len(seen.rows)):
        return speeds
    speeds = replace(speeds, fusion=_time_fusion(first, sample, seen, machine.batch))
    digest = first.encoder.digest
    del first  # both models at once would take twice the memory of the run
    if stage2 is None:
        return speeds
    began = time.perf_counter()
    second = open_reranker(stage2)
    opened = time.perf_counter() - began
    if second.encoder.digest != digest:
        encoder = second.encoder.to(machine.device)
        _, again, seen = _see_sample(pictures, encoder, rows)
        speeds = replace(speeds, image_again=again)
    began = time.perf_counter()
    queries = _random_queries(second.config, sample, seen)
    scorer = open_scorer(second, queries, machine, precision)
    opened += time.perf_counter() - began
    scoring = _time_scoring(second.config, scorer, queries, sample, seen)
    return replace(speeds, open_stage2=opened, scoring=scoring)


def calibrate_scoring(
    pictures: Pictures, stage2: Path, sample: Sample, *, precision: Precision
) -> float:
    """Seconds of one FLOP of the engine, its images seen. As ``calibrate``, of scoring alone; 0
    without images or texts."""
    model = open_reranker(stage2)
    rows = _drawn(pictures.table().num_rows)
    if not (rows and sample.token_ids):
        return 0.0
    encoder = model.encoder.to(pictures.machine.device)
    _, _, seen = _see_sample(pictures, encoder, rows)
    if not len(seen.rows):
        return 0.0
    queries = _random_queries(model.config, sample, seen)
    scorer = open_scorer(model, queries, pictures.machine, precision)
    return _time_scoring(model.config, scorer, queries, sample, seen)


def _drawn(images: int) -> list[int]:
    """Rows of the sample, in random order, since a folder often begins with images of a kind; all
    of them once before any again."""
    rounds = -(-MOST_IMAGES // max(1, images))
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(images) for _ in range(rounds)])
    return [int(row) for row in rows[:MOST_IMAGES]]


def _see_sample(
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


def _time_pictures(pictures: Pictures, preprocess: Preprocess, rows: list[int]) -> float:
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


def _time_fusion(model: Retriever, sample: Sample, seen: Seen, batch: int) -> float:
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
        fuse_each(model, seen, questions, range(count), batch)
        return model.config.asking_flops(np.array([len(token_ids) for token_ids in some]))

    return _seconds_each(fuse, most=batch)


@dataclass(frozen=True)
class _SeenReferences:
    """Some images, as the references of queries."""

    seen: Seen
    of_query: Int[np.ndarray, " query"]

    def states(self, references: Int[np.ndarray, " some"]) -> Float[Tensor, "some ..."]:
        return self.seen.tokens[torch.from_numpy(references)].float().cpu()


def _random_queries(config: RerankerConfig, sample: Sample, seen: Seen) -> FusedQueries:
    """As long as the sample's; a reranker that reads texts itself gets as many words."""
    rng, width = np.random.default_rng(0), config.state_width
    if width:
        z_t = [rng.standard_normal((len(ids), width), dtype=np.float32) for ids in sample.token_ids]
        return FusedQueries.of(z_t, sample.token_ids)
    texts = [" ".join(["red"] * len(ids)) for ids in sample.token_ids]
    references = _SeenReferences(seen, np.arange(len(texts)) % len(seen.rows))
    return FusedQueries.of([], config.tokenizer()(texts), texts=texts, references=references)


def _time_scoring(
    config: RerankerConfig, scorer: Scorer, queries: FusedQueries, sample: Sample, seen: Seen
) -> float:
    rng, images, lengths = np.random.default_rng(0), len(seen.rows), queries.lengths
    each = min(sample.pairs_per_image, MOST_PAIRS)

    def score(count: int) -> float:
        picture = np.sort(np.arange(count) // each % images)
        text = rng.integers(0, len(lengths), count)
        pairs = Pairs(np.arange(count), picture, np.arange(count + 1), text)
        part = Part("sample", range(count), count)
        shard = Shard(part.items, [part], [part])
        deque(score_shard(scorer, [seen], pairs, shard, _Silent()), maxlen=0)
        return config.scoring_flops(Load.of(lengths[text], picture, images=images))

    score(1)  # begins the queries
    return _seconds_each(score, most=each * images)


def _time_search(sample: Sample, width: int) -> tuple[float, float]:
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
