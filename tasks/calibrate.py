"""How fast this machine is with these models: each part of a run on a sample of its own work."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cir_core.forecast import Speeds
from cir_core.models.flops import fusion_flops
from cir_core.models.fusion import Stage1Model
from cir_core.models.reranker import Stage2Model
from cir_core.models.tokenizer import pad_tokens
from cir_core.rerank.cost import Sizes, engine_flops
from cir_core.rerank.engine import RerankEngine
from cir_core.rerank.packing import FusedQueries
from cir_core.retrieval.candidates import NONE_REMOVED
from cir_core.retrieval.choice import IndexChoice, open_index
from cir_core.retrieval.scores import Gallery
from cir_core.types import Precision
from tasks.image_tokens import Pictures
from tasks.kept_tokens import Keeping, has_kept, see_images
from tasks.models import open_stage1, open_stage2

SECONDS = 1.5
"""For each speed, after its warm-up: long enough to even out a busy machine's moods, a few percent
of any run worth planning."""

MOST_IMAGES = 4096
"""Of the sample; a GPU is through with them in the time it takes to start."""

SEARCHED = 20_000
"""Images that a sample search goes through: more than the caches hold."""

QUERIES_AT_ONCE = 1024
"""Of a sample search, as of a real one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """What the run will be like: token ids of some texts, the pairs of an image, and the images and
    candidates of a search."""

    token_ids: Sequence[list[int]]
    pairs_per_image: int
    gallery: int
    k: int
    index: IndexChoice


def calibrate(
    pictures: Pictures,
    stage1: Path,
    stage2: Path,
    sample: Sample,
    *,
    device: str,
    tokens: Keeping,
    memory: int | None,
    precision: Precision,
) -> Speeds:
    """Open both models and time a sample of each part, by the code that runs it; nothing is
    written. Takes some ten seconds, on a slow machine a few images and pairs of them.

    Decoding and the ViT are timed on files spread over the split; z_t and embeddings are random,
    since they change no time. Without images or texts there is nothing to time, and what is not
    timed is 0. Raises as ``open_stage1`` and ``feed_pixels``.
    """
    _log.info("timing samples of the run")
    began = time.perf_counter()
    first = open_stage1(stage1).to(device)
    opened = time.perf_counter() - began
    kept = tokens != "recompute" and has_kept(pictures, first.vision)
    feed, image, seen = _see_sample(pictures, first, tokens="auto" if kept else "recompute")
    asked = bool(sample.token_ids) and len(seen) > 0
    fusion = _time_fusion(first, sample, seen) if asked else 0.0
    width = first.config.embedding
    del first  # both models at once would take twice the memory of the run
    began = time.perf_counter()
    second = open_stage2(stage2)
    engine = _engine(second, sample, device, memory, precision)
    opened_second = time.perf_counter() - began
    return Speeds(
        open_stage1=opened,
        open_stage2=opened_second,
        feed=feed,
        image=image,
        kept=kept,
        fusion=fusion,
        scoring=_time_scoring(second, engine, sample, seen) if asked else 0.0,
        search=_time_search(sample, width) if sample.gallery else 0.0,
    )


def _see_sample(
    pictures: Pictures, model: Stage1Model, *, tokens: Keeping
) -> tuple[float, float, Tensor]:
    """Seconds until the first image, seconds of each further one, and some images' tokens.

    Batches double in size up to the run's. The images are seen until the time is up; the last
    batch's tokens are what is left.
    """
    total = pictures.table().num_rows
    if not total:
        return 0.0, 0.0, torch.empty(0, 0, 0)
    rows = np.linspace(0, total - 1, MOST_IMAGES).astype(int).tolist()
    sizes = _doubling(pictures.batch)
    plan, start = [], 0
    while start < len(rows):
        plan.append(rows[start : start + next(sizes)])
        start += len(plan[-1])
    began = time.perf_counter()
    with see_images(pictures, model.vision, plan, tokens=tokens) as images:
        last = next(images).tokens
        fed = time.perf_counter()
        count = 0
        for batch, seen in zip(plan[1:], images, strict=True):
            count += len(batch)
            if len(seen.tokens):
                last = seen.tokens
            _wait(last)
            if time.perf_counter() - fed > SECONDS:
                break
        return fed - began, (time.perf_counter() - fed) / count, last.clone()


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

    def score(count: int) -> int:
        image = np.repeat(np.arange(count), sample.pairs_per_image)
        query = rng.integers(0, len(lengths), len(image))
        engine.score(images[:count], query, image)
        return engine_flops(sizes, lengths[query], image)

    return _seconds_each(score, most=len(images))


def _time_search(sample: Sample, width: int) -> float:
    rng = np.random.default_rng(0)
    images, queries = (
        rng.standard_normal((count, width), dtype=np.float32)
        for count in (min(sample.gallery, SEARCHED), QUERIES_AT_ONCE)
    )
    index = open_index(Gallery(images), sample.index)

    def search(count: int) -> int:
        removed = np.full(count, NONE_REMOVED)
        index.search(queries[:count], k=sample.k, removed=removed)
        return count * len(images)

    return _seconds_each(search, most=QUERIES_AT_ONCE)


def _seconds_each(work: Callable[[int], int], *, most: int) -> float:
    """Seconds of one unit, of which ``work`` says how many it did with a given size.

    Sizes double while that is quick; only the largest is timed, and repeated until the time is up.
    """
    sizes = _doubling(most)
    size, took, done = next(sizes), 0.0, 0
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
