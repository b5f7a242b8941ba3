"""How fast this machine is with these models: each part of a run on a sample of its own work."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cir_core.layers.vision import VisionTransformer
from cir_core.layers.wordpiece import pad_tokens
from cir_core.planning.effort import Speeds
from cir_core.rerankers.dual.cost import Load, Sizes, engine_flops
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.dual.packing import FusedQueries
from cir_core.retrievers.blip.cost import fusion_flops
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.search.candidates import NONE_REMOVED
from cir_core.search.choice import IndexChoice, IndexKind
from cir_core.search.indexes import open_index
from cir_core.search.scores import QUERIES_AT_ONCE, Gallery
from cir_core.types import Precision
from tasks.feed.decode import load_crop
from tasks.feed.image_tokens import Pictures, compute_tokens
from tasks.feed.pixels import image_files
from tasks.models.opening import open_stage1, open_stage2

SECONDS = 1.5
"""For each speed, after its warm-up: long enough to even out a busy machine's moods, a few percent
of any run worth planning."""

MOST_IMAGES = 4096
"""Of the sample; a GPU is through with them in the time it takes to start."""

MOST_PAIRS = 256
"""Of an image in a sample: beyond, its keys and values are a small part of the work."""

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


def calibrate(
    pictures: Pictures,
    stage1: Path,
    stage2: Path,
    sample: Sample,
    *,
    device: str,
    memory: int | None,
    precision: Precision,
) -> Speeds:
    """Open both models and time a sample of each part, by the code that runs it; nothing is
    written. Takes a second or two for each of four parts, or as long as a few images and pairs take
    a slow machine.

    Decoding and the ViT are timed on images drawn from all of the split; z_t and embeddings are
    random, since they change no time. Without images or texts there is nothing to time, and what is
    not timed is 0. Raises as ``open_stage1`` and ``feed_pixels``.
    """
    _log.info("timing samples of the run")
    began = time.perf_counter()
    first = open_stage1(stage1).to(device)
    speeds = Speeds(open_stage1=time.perf_counter() - began)
    rows = _drawn(pictures.table().num_rows)
    if not rows:
        return speeds
    feed, image, seen = _see_sample(pictures, first.vision, rows)
    picture = _time_pictures(pictures, first.config.vision.image_size, rows)
    speeds = replace(speeds, feed=feed, image=image, picture=picture)
    if sample.gallery:
        index, search = _time_search(sample, first.config.embedding)
        speeds = replace(speeds, index=index, search=search)
    if not (sample.token_ids and len(seen)):
        return speeds
    speeds = replace(speeds, fusion=_time_fusion(first, sample, seen))
    del first  # both models at once would take twice the memory of the run
    began = time.perf_counter()
    second = open_stage2(stage2)
    engine = _engine(second, sample, device, memory, precision)
    opened = time.perf_counter() - began
    return replace(speeds, open_stage2=opened, scoring=_time_scoring(second, engine, sample, seen))


def _drawn(images: int) -> list[int]:
    """Rows of the sample, in random order, since a folder often begins with images of a kind; all
    of them once before any again."""
    rounds = -(-MOST_IMAGES // max(1, images))
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(images) for _ in range(rounds)])
    return [int(row) for row in rows[:MOST_IMAGES]]


def _see_sample(
    pictures: Pictures, vision: VisionTransformer, rows: list[int]
) -> tuple[float, float, Tensor]:
    """Seconds until the first image, seconds of each further one, and some images' tokens.

    Batches double in size up to the run's. Images are seen until the time is up; the tokens of the
    last batch are what is left.
    """
    sizes = _doubling(pictures.batch)
    plan, start = [], 0
    while start < len(rows):
        plan.append(rows[start : start + next(sizes)])
        start += len(plan[-1])
    began = time.perf_counter()
    with compute_tokens(pictures, vision, plan) as images:
        last = next(images).tokens
        fed = time.perf_counter()
        count = 0
        for batch, seen in zip(plan[1:], images, strict=True):
            count += len(batch)
            last = seen.tokens if len(seen.tokens) else last
            _wait(last)
            if time.perf_counter() - fed > SECONDS:
                break
        return fed - began, (time.perf_counter() - fed) / count, last.clone()


def _time_pictures(pictures: Pictures, size: int, rows: list[int]) -> float:
    """Seconds to decode one, in turn with nothing else."""
    files = image_files(pictures.table())
    crop = np.empty((size, size, 3), dtype=np.uint8)
    began, spent = time.perf_counter(), []
    for row in rows:
        load_crop(crop, pictures.root, files[row])
        spent.append(time.perf_counter() - began)
        if spent[-1] > SECONDS / 10:
            break
    return spent[-1] / len(spent)


def _time_fusion(model: Stage1Model, sample: Sample, images: Tensor) -> float:
    texts = sorted(sample.token_ids, key=len)

    @torch.inference_mode()
    def fuse(count: int) -> int:
        some = [texts[row] for row in np.linspace(0, len(texts) - 1, count).astype(int)]
        padded = pad_tokens(some)
        device = images.device
        references = images[torch.arange(count, device=device) % len(images)]
        z_t = model.fuse(padded.ids.to(device), padded.lengths.to(device), references)
        _wait(model.embed_queries(z_t))
        return fusion_flops(model.config, padded.lengths.numpy())

    return _seconds_each(fuse, most=len(images))


def _engine(
    model: Stage2Model, sample: Sample, device: str, memory: int | None, precision: Precision
) -> RerankEngine:
    rng, width = np.random.default_rng(0), model.config.text.width
    z_t = [rng.standard_normal((len(ids), width), dtype=np.float32) for ids in sample.token_ids]
    queries = FusedQueries.of(z_t, list(sample.token_ids))
    return RerankEngine(
        model, queries, device=torch.device(device), memory=memory, precision=precision
    )


def _time_scoring(
    model: Stage2Model, engine: RerankEngine, sample: Sample, images: Tensor
) -> float:
    rng, sizes = np.random.default_rng(0), Sizes.of(model.config)
    lengths = np.array([len(ids) for ids in sample.token_ids])
    engine.score(images[:1], np.zeros(1, dtype=int), np.zeros(1, dtype=int))  # begins the queries
    each = min(sample.pairs_per_image, MOST_PAIRS)

    def score(pairs: int) -> float:
        image = np.arange(pairs) // each % len(images)
        query = rng.integers(0, len(lengths), len(image))
        engine.score(images, query, image)
        return engine_flops(sizes, Load.of(lengths[query], image, images=len(images)))

    return _seconds_each(score, most=each * len(images))


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


def _doubling(most: int) -> Iterator[int]:
    size = 1
    while True:
        yield min(size, most)
        size *= 2


def _wait(result: Tensor) -> None:
    """Until a GPU has computed it: one number of it is fetched."""
    result.flatten()[:1].cpu()
