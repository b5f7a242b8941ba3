"""Efforts by hand: small workloads, and a machine that takes round numbers of seconds."""

from dataclasses import replace

import numpy as np
import pytest

from cir_core.layers.encoders import image_flops
from cir_core.planning.effort import Effort, Forecast, Left, Speeds, Workload, together
from cir_core.planning.expected import Pool, expect, known
from cir_core.ports import Load
from cir_core.rerankers.dual.cost import begin_flops, engine_flops
from cir_core.search.candidates import NONE_REMOVED
from cir_core.types import Keeping
from flows.plan import efforts_of
from tasks.stages.retrieve import SECONDS_PER_GALLERY
from tests.support.tiny_models import stage2_config, tiny_stage1

STAGE1, STAGE2 = tiny_stage1().config, stage2_config()
STAGES = "encode", "fuse", "retrieve", "rerank", "rank", "evaluate", "publish", "report", "ranked"
IMAGES = 10
LENGTHS = np.array([3, 5, 4])
LOAD = Load.of(np.repeat(LENGTHS, 2), np.array([0, 1, 0, 7, 7, 1]), images=IMAGES)
WORK = Workload(
    images=IMAGES,
    pictures=IMAGES,
    queries=3,
    galleries=2,
    token_ids=[[1] * length for length in LENGTHS],
    references=np.array([0, 0, 9]),
    asked_by=["a", "b", "c"],
    compared=30,
    candidates=6,
    expected=known(LOAD),
)
SPEEDS = Speeds(
    open_stage1=100, open_stage2=200, feed=10, image=2, picture=0, fusion=1e-3, scoring=1e-4,
    index=3, search=5,
)  # fmt: skip
EVERY, NONE = np.ones(IMAGES), np.zeros(IMAGES)
ALL = Left(frozenset(STAGES), encoded=EVERY, fused=EVERY, scored=EVERY)
FIRST_5 = np.repeat([1.0, 0.0], 5)
VISION, IMAGE_BYTES = image_flops(STAGE1.vision), 4 * 5 * 12


def efforts(left: Left = ALL, tokens: Keeping = "auto") -> dict[str, Effort]:
    return efforts_of(Forecast(WORK, WORK, left, STAGE1, STAGE2, SPEEDS, tokens))


def about(seconds: float) -> object:
    """Tables take some microseconds more."""
    return pytest.approx(seconds, abs=1e-3)


def test_each_stage_by_hand() -> None:
    found = efforts()
    fusion, begun = STAGE1.asking_flops(LENGTHS), begin_flops(STAGE2.sizes, LENGTHS)
    scoring = begun + engine_flops(STAGE2.sizes, LOAD)
    assert tuple(found) == STAGES
    assert found["encode"] == Effort(
        images=10, flops=10 * VISION, bytes=4 * 8 * 10, seconds=10 + 20 + 100
    )
    assert found["fuse"] == Effort(
        queries=3, flops=fusion, bytes=4 * 8 * 3 + 4 * 16 * 12, seconds=fusion * 1e-3
    )
    retrieve, rerank = found["retrieve"], found["rerank"]
    assert (retrieve.pairs, retrieve.flops, retrieve.bytes) == (6, 2 * 8 * 30, 16 * 6)
    assert retrieve.seconds == about(10 * 3 + 30 * 5 + 2 * SECONDS_PER_GALLERY)
    assert (rerank.images, rerank.pairs, rerank.flops) == (3, 6, 3 * VISION + scoring)
    assert rerank.seconds == about(200 + 10 + 6 + scoring * 1e-4)
    assert {found[stage].pairs for stage in STAGES[4:]} == {6}


def test_what_is_there_takes_nothing() -> None:
    nothing = Left(frozenset(), encoded=NONE, fused=NONE, scored=NONE)
    assert efforts(nothing) == {}
    assert efforts(nothing, tokens="cache") == {}


def test_images_seen_for_queries_alone_are_the_queries_effort() -> None:
    left = replace(ALL, stages=ALL.stages - {"encode"}, encoded=NONE, fused=FIRST_5)
    found = efforts(left)
    fusion = STAGE1.asking_flops(LENGTHS[:2])
    assert "encode" not in found
    assert (found["fuse"].images, found["fuse"].queries) == (1, 2), "their reference's alone"
    assert found["fuse"].seconds == about(100 + 10 + 1 * 2 + fusion * 1e-3)


def test_the_pass_sees_what_either_of_its_stages_lacks() -> None:
    found = efforts(replace(ALL, encoded=FIRST_5, fused=1 - FIRST_5))
    assert found["encode"].images == 10
    assert found["encode"].bytes == 4 * 8 * 5
    assert found["fuse"].queries == 1


def test_pairs_of_images_that_are_done_are_not_scored_again() -> None:
    scored = efforts(replace(ALL, scored=FIRST_5))["rerank"]
    assert (scored.images, scored.pairs) == (2, 4)
    begun = begin_flops(STAGE2.sizes, LENGTHS)
    left = engine_flops(STAGE2.sizes, LOAD.of_images(FIRST_5))
    assert scored.flops == 2 * VISION + begun + left


def test_tokens_to_be_kept_are_a_stage_and_then_read() -> None:
    found, whole = efforts(tokens="cache"), efforts()
    assert found["tokens"] == Effort(
        images=10, flops=10 * VISION, bytes=IMAGE_BYTES * 10, seconds=10 + 20
    )
    assert (found["encode"].flops, found["encode"].seconds) == (0, about(100))
    assert found["rerank"].seconds == about(whole["rerank"].seconds - 16)
    begun = efforts(replace(ALL, kept=6), tokens="cache")
    assert (begun["tokens"].images, begun["tokens"].bytes) == (4, IMAGE_BYTES * 4)


def test_tokens_that_are_kept_are_read_unless_they_shall_not_be() -> None:
    kept = replace(ALL, kept=10)
    assert efforts(kept) == efforts(kept, tokens="cache")
    assert efforts(kept)["encode"].seconds == about(100)
    assert efforts(kept, tokens="recompute") == efforts()
    assert efforts(replace(ALL, kept=9)) == efforts()


def test_a_catalog_is_built_of_all_runs() -> None:
    one, three = efforts()["publish"], efforts(replace(ALL, runs=2))["publish"]
    assert three.seconds == pytest.approx(3 * one.seconds)


def test_efforts_add_up() -> None:
    one = Effort(images=1, pairs=2, seconds=0.5)
    assert together([]) == Effort()
    assert together([one, one, Effort(bytes=7)]) == Effort(images=2, pairs=4, bytes=7, seconds=1)


# --- expected pairs


def pool(
    gallery: list[int],
    lengths: list[int],
    candidates: list[int],
    members: list[tuple[int, int]] | None = None,
    removed: int = NONE_REMOVED,
) -> Pool:
    """``members`` are pairs of a text and an image; all texts remove the same image."""
    asked = np.array(members or [], dtype=int).reshape(-1, 2)
    rows = np.full(len(lengths), removed)
    texts = np.array(lengths, dtype=int), rows, np.array(candidates, dtype=int)
    return Pool(np.array(gallery, dtype=int), len(gallery), *texts, asked[:, 0], asked[:, 1])


def test_each_text_has_its_candidates_in_its_own_gallery() -> None:
    expected = expect([pool([0, 1, 2, 3], [2, 9], [1, 3]), pool([7], [5], [1])], pictures=9)
    assert expected.load.pairs.tolist() == [1, 1, 1, 1, 0, 0, 0, 1, 0]
    assert expected.load.tokens[0] == 2 / 4 + 9 * 3 / 4
    assert expected.load.looks[0] == 4 / 4 + 81 * 3 / 4
    assert expected.seen[0] == pytest.approx(1 - 3 / 4 * 1 / 4)
    assert expected.seen[[4, 7]] == pytest.approx([0, 1])


def test_galleries_that_share_images_see_them_once() -> None:
    """As those of own data do, where only the queries have categories."""
    expected = expect([pool([0, 1], [4], [2])] * 5, pictures=2)
    assert expected.load.pairs.tolist() == [5, 5]
    assert expected.images == pytest.approx(2)


def test_a_member_that_is_a_candidate_too_is_one_pair() -> None:
    expected = expect([pool([0, 1], [4], [1], members=[(0, 0), (0, 1)])], pictures=2)
    assert expected.pairs == 1 + 2 / 2
    assert expected.images == pytest.approx(2)
    certain = expect([pool([0, 1], [4], [2], members=[(0, 1)])], pictures=2)
    assert certain.pairs == 2


def test_a_removed_image_is_no_candidate_and_the_others_are_for_it() -> None:
    expected = expect([pool([0, 1, 2], [4], [2], members=[(0, 1)], removed=0)], pictures=3)
    assert expected.load.pairs.tolist() == [0, 1, 1]
    assert expected.seen == pytest.approx([0, 1, 1])
    some = expect([pool([0, 1, 2], [4], [1], removed=2)], pictures=3)
    assert some.load.tokens.tolist() == [2, 2, 0]
    assert some.seen == pytest.approx([0.5, 0.5, 0])


def test_expected_pairs_are_those_that_draws_have_on_average() -> None:
    rng = np.random.default_rng(0)
    lengths, candidates, images = rng.integers(1, 9, 40), rng.integers(0, 20, 40), 60
    expected = expect([pool(list(range(images)), list(lengths), list(candidates))], images)
    drawn = []
    for _ in range(200):
        rows = [rng.choice(images, count, replace=False) for count in candidates]
        load = Load.of(np.repeat(lengths, candidates), np.concatenate(rows), images)
        drawn.append(((load.pairs > 0).sum(), engine_flops(STAGE2.sizes, load)))
    seen, flops = np.mean(drawn, axis=0)
    assert expected.pairs == pytest.approx(candidates.sum())
    assert expected.images == pytest.approx(seen, rel=0.01)
    assert engine_flops(STAGE2.sizes, expected.load) == pytest.approx(flops, rel=0.03)


def test_no_queries_and_no_images_cost_nothing() -> None:
    assert expect([], pictures=0).pairs == 0
    empty = expect([pool([0, 1], [], []), pool([], [3], [0])], pictures=2)
    assert (empty.pairs, empty.images) == (0, 0)
    assert engine_flops(STAGE2.sizes, empty.load) == 0
