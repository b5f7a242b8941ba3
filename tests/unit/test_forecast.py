"""Efforts by hand: small workloads, and a machine that takes round numbers of seconds."""

from dataclasses import replace

import numpy as np
import pytest

from cir_core.forecast import (
    PAIRS_DRAWN,
    Effort,
    Left,
    Pairs,
    Pool,
    Speeds,
    Workload,
    expect_pairs,
    forecast,
)
from cir_core.models.flops import fusion_flops, vision_flops
from cir_core.rerank.cost import Sizes, begin_flops, engine_flops
from tests.support.tiny_models import stage2_config, tiny_stage1

STAGE1, STAGE2 = tiny_stage1().config, stage2_config()
STAGES = "encode", "fuse", "retrieve", "rerank", "rank", "evaluate", "publish", "report"
ALL = Left(stages=frozenset(STAGES), encoded=10, fused=1.0, scored=1.0)
LENGTHS = np.array([3, 5, 4])
PAIRS = Pairs(lengths=np.repeat(LENGTHS, 2), images=np.array([0, 1, 0, 7, 7, 1]))
WORK = Workload(
    images=10,
    queries=3,
    token_ids=[[1] * length for length in LENGTHS],
    compared=30,
    pairs=PAIRS,
)
SPEEDS = Speeds(
    open_stage1=100, open_stage2=200, feed=10, image=2, fusion=1e-3, scoring=1e-4, search=5
)


def efforts(left: Left = ALL, speeds: Speeds = SPEEDS, *, keep: bool = False) -> dict[str, Effort]:
    return forecast(WORK, left, STAGE1, STAGE2, speeds, keeps_tokens=keep)


def test_each_stage_by_hand() -> None:
    found = efforts()
    fusion = fusion_flops(STAGE1, LENGTHS)
    scoring = begin_flops(Sizes.of(STAGE2), LENGTHS)
    scoring += engine_flops(Sizes.of(STAGE2), PAIRS.lengths, PAIRS.images)
    vision = vision_flops(STAGE1.vision)
    assert tuple(found) == STAGES
    assert found["encode"] == Effort(
        images=10, flops=10 * vision, bytes=4 * 8 * 10, seconds=100 + 10 + 20
    )
    assert found["fuse"] == Effort(
        queries=3, flops=fusion, bytes=4 * 8 * 3 + 4 * 16 * 12, seconds=fusion * 1e-3
    )
    retrieve, rerank = found["retrieve"], found["rerank"]
    assert (retrieve.pairs, retrieve.flops, retrieve.bytes) == (6, 2 * 8 * 30, 16 * 6)
    assert retrieve.seconds == pytest.approx(150, abs=1e-3)
    assert (rerank.images, rerank.pairs, rerank.flops) == (3, 6, 3 * vision + scoring)
    assert rerank.seconds == pytest.approx(200 + 10 + 6 + scoring * 1e-4, abs=1e-3)


def test_what_is_there_takes_nothing() -> None:
    nothing = Left(stages=frozenset(), encoded=0, fused=0.0, scored=0.0)
    assert efforts(nothing) == {}
    assert efforts(nothing, keep=True) == {}


def test_images_seen_for_queries_alone_are_the_queries_effort() -> None:
    left = replace(ALL, stages=ALL.stages - {"encode"})
    found, whole = efforts(left), efforts()
    assert "encode" not in found
    assert found["fuse"].images == 10
    assert found["fuse"].seconds == whole["encode"].seconds + whole["fuse"].seconds


def test_half_of_the_pairs_take_half_of_the_work_and_models_are_opened_all_the_same() -> None:
    left = Left(stages=frozenset(STAGES[3:]), encoded=0, fused=0.0, scored=0.5)
    half, whole = efforts(left)["rerank"], efforts()["rerank"]
    assert (half.pairs, half.images) == (3, round(1.5))
    scored = (whole.seconds - 200 - 10 - 6) / 2
    assert half.seconds == pytest.approx(200 + 10 + 2 * 2 + scored, abs=1e-3)


def test_tokens_to_be_kept_are_a_stage_and_then_read() -> None:
    found, whole = efforts(keep=True), efforts()
    image = STAGE1.vision.tokens * STAGE1.vision.width
    assert found["tokens"].bytes == 4 * image * 10
    assert found["tokens"].seconds == 10 + 20
    assert found["encode"].flops == 0
    assert found["encode"].seconds == pytest.approx(100, abs=1e-3)
    assert found["rerank"].seconds == pytest.approx(whole["rerank"].seconds - 16, abs=1e-3)


def test_kept_tokens_are_read_at_the_measured_speed_without_flops_of_the_vit() -> None:
    found = efforts(speeds=replace(SPEEDS, kept=True), keep=True)
    assert "tokens" not in found
    assert (found["encode"].flops, found["encode"].seconds) == (0, 130)


def test_expected_pairs_are_those_of_every_text_within_its_gallery() -> None:
    pools = [
        Pool(lengths=np.array([2, 9]), candidates=np.array([3, 5]), images=4),
        Pool(lengths=np.array([7]), candidates=np.array([2]), images=10),
        Pool(lengths=np.array([], dtype=int), candidates=np.array([], dtype=int), images=5),
    ]
    pairs = expect_pairs(pools)
    assert pairs.lengths.tolist() == [2] * 3 + [9] * 5 + [7] * 2
    assert set(pairs.images[:8].tolist()) <= set(range(4))
    assert set(pairs.images[8:].tolist()) <= set(range(4, 14))
    assert (pairs.each, pairs.count) == (1, 10)
    again = expect_pairs(pools)
    assert again.images.tolist() == pairs.images.tolist()


def test_very_many_pairs_are_counted_by_a_sample_of_the_same_density() -> None:
    texts, images, k = 30_000, 6_000, 200
    pool = Pool(np.full(texts, 10), np.full(texts, k), images)
    pairs = expect_pairs([pool])
    assert pairs.each == texts * k / PAIRS_DRAWN == 3
    assert pairs.count == texts * k
    assert pairs.images_seen == images
    assert pairs.per_image == texts * k / images
    sizes = Sizes.of(STAGE2)
    rows = np.arange(texts * k)
    every = engine_flops(sizes, np.full(len(rows), 10), rows % images)
    assert pairs.engine_flops(sizes) == pytest.approx(every, rel=0.01)


def test_no_pairs_cost_nothing() -> None:
    pairs = expect_pairs([])
    assert (pairs.count, pairs.images_seen, pairs.per_image) == (0, 0, 1)
    assert pairs.engine_flops(Sizes.of(STAGE2)) == 0
