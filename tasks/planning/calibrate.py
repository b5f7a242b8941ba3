"""How fast this machine is with these models: each part of a run on a sample of its own work."""

import logging
import time
from dataclasses import replace
from pathlib import Path

from cir_core.planning.effort import Speeds
from cir_core.types import Precisions
from tasks.feed.image_tokens import Pictures
from tasks.models.opening import open_reranker, open_retriever
from tasks.planning.timing import (
    Sample,
    drawn,
    random_queries,
    see_sample,
    time_fusion,
    time_pictures,
    time_scoring,
    time_search,
)
from tasks.stages.rerank import open_scorer

_log = logging.getLogger(__name__)


def calibrate(
    pictures: Pictures, stage1: Path, stage2: Path | None, sample: Sample, *, precision: Precisions
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
    first = open_retriever(stage1, encoder=precision.encoder, precision=precision.stage1)
    first = first.to(machine.device)
    speeds = Speeds(open_stage1=time.perf_counter() - began)
    rows = drawn(pictures.table().num_rows)
    if not rows:
        return speeds
    feed, image, seen = see_sample(pictures, first.encoder, rows)
    picture = time_pictures(pictures, first.config.pictures, rows)
    speeds = replace(speeds, feed=feed, image=image, picture=picture)
    if sample.gallery:
        index, search = time_search(sample, first.config.embedding)
        speeds = replace(speeds, index=index, search=search)
    if not (sample.token_ids and len(seen.rows)):
        return speeds
    speeds = replace(speeds, fusion=time_fusion(first, sample, seen, machine.batch))
    digest = first.encoder.digest
    del first  # both models at once would take twice the memory of the run
    if stage2 is None:
        return speeds
    began = time.perf_counter()
    second = open_reranker(stage2, encoder=precision.encoder)
    opened = time.perf_counter() - began
    if second.encoder.digest != digest:
        encoder = second.encoder.to(machine.device)
        _, again, seen = see_sample(pictures, encoder, rows)
        speeds = replace(speeds, image_again=again)
    began = time.perf_counter()
    queries = random_queries(second.config, sample, seen)
    scorer = open_scorer(second, queries, machine, precision.stage2)
    opened += time.perf_counter() - began
    scoring = time_scoring(second.config, scorer, queries, sample, seen)
    return replace(speeds, open_stage2=opened, scoring=scoring)


def calibrate_scoring(
    pictures: Pictures, stage2: Path, sample: Sample, *, precision: Precisions
) -> float:
    """Seconds of one FLOP of the engine, its images seen. As ``calibrate``, of scoring alone; 0
    without images or texts."""
    model = open_reranker(stage2, encoder=precision.encoder)
    rows = drawn(pictures.table().num_rows)
    if not (rows and sample.token_ids):
        return 0.0
    encoder = model.encoder.to(pictures.machine.device)
    _, _, seen = see_sample(pictures, encoder, rows)
    if not len(seen.rows):
        return 0.0
    queries = random_queries(model.config, sample, seen)
    scorer = open_scorer(model, queries, pictures.machine, precision.stage2)
    return time_scoring(model.config, scorer, queries, sample, seen)
