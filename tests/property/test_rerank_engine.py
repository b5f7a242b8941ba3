"""Candidate-major re-ranking gives each pair the score that a plain forward pass gives it alone."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cir_core.errors import NonFiniteError, PreflightError
from cir_core.ports import FusedQueries, Scorer
from cir_core.rerankers.dual import engine, grouping, layers, one_by_one
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.plain import ReferenceScorer
from tasks.models.opening import open_stage2
from tests.support.plain_reranker import plain_score
from tests.support.small_benchmarks import Pair
from tests.support.tiny_checkpoints import GOLDEN
from tests.support.tiny_models import TEXT, VISION, tiny_stage2
from tests.support.tolerances import PUBLISHED_STATES, rounding, text_sums

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
LAYERS = 3
QUERIES, IMAGES = 5, 4
LENGTHS = (2, 7, 3, 7, 4)

TOLERANCE = rounding(text_sums(TEXT, VISION, tokens=max(LENGTHS)), magnitude=3)
"""8e-5, of scores between -3 and 3: the engine computes in fp32, the plain loop in float64."""

Row = tuple[int, int]
"""A pair to score: query and image."""

ALL_PAIRS = [(query, image) for query in range(QUERIES) for image in range(IMAGES)]
PAIRS = st.lists(
    st.tuples(st.integers(0, QUERIES - 1), st.integers(0, IMAGES - 1)), min_size=1, max_size=14
)
MERGES = st.integers(0, LAYERS)
MEMORY = st.sampled_from([1, 8_000, 20_000, 2**26])
"""A token takes about 1 KB and an image 2: one pair a block, several, and everything in one."""
ABSORBED = st.sampled_from([0, 4, 8, 1000])
"""Up to how many tokens look at the image itself: none, some of these, all."""


@dataclass(frozen=True)
class World:
    image_tokens: Tensor
    z_t: list[np.ndarray]
    token_ids: list[list[int]]

    @property
    def queries(self) -> FusedQueries:
        return FusedQueries.of(self.z_t, self.token_ids)


@cache
def world() -> World:
    rng = np.random.default_rng(3)
    image_shape = (IMAGES, VISION.tokens, VISION.width)
    return World(
        torch.from_numpy(rng.standard_normal(image_shape).astype(np.float32)),
        [rng.standard_normal((n, TEXT.width)).astype(np.float32) for n in LENGTHS],
        [rng.integers(0, TEXT.vocabulary_size, n).tolist() for n in LENGTHS],
    )


@cache
def model(merge_from: int, layers: int = LAYERS) -> Stage2Model:
    return tiny_stage2(merge_from=merge_from, layers=layers)


@cache
def plain(pair: Row, merge_from: int, layers: int = LAYERS) -> float:
    query, image = pair
    return plain_score(
        model(merge_from, layers).state_dict(),
        heads=TEXT.heads,
        z_t=torch.from_numpy(world().z_t[query]),
        token_ids=world().token_ids[query],
        image_tokens=world().image_tokens[image],
    )


def engine_of(
    scorer: Stage2Model, memory: int | None = 2**26, *, grouped: bool | None = None
) -> RerankEngine:
    return RerankEngine(scorer, world().queries, device=CPU, memory=memory, grouped=grouped)


def score(scorer: Scorer, pairs: list[Row]) -> list[float]:
    columns = np.array(pairs, dtype=int).reshape(-1, 2)
    found = scorer.score(scorer.prepare(world().image_tokens), columns[:, 0], columns[:, 1])
    assert found.dtype == np.float32
    return found.tolist()


@given(PAIRS, MERGES, MEMORY, ABSORBED, st.booleans())
@settings(deadline=None)
def test_every_plan_gives_the_plain_scores(
    pairs: list[Row], merge_from: int, memory: int, absorbed: int, grouped: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for attending in (one_by_one, grouping):
            patch.setattr(attending, "absorbed_rows", lambda _sizes: absorbed)
        found = score(engine_of(model(merge_from), memory, grouped=grouped), pairs)
    expected = [plain(pair, merge_from) for pair in pairs]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@given(PAIRS, MERGES)
@settings(deadline=None, max_examples=20)
def test_the_published_loop_gives_the_plain_scores(pairs: list[Row], merge_from: int) -> None:
    found = score(ReferenceScorer(model(merge_from), world().queries), pairs)
    expected = [plain(pair, merge_from) for pair in pairs]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("merge_from", [0, 1, 2])
def test_shallow_models_give_the_plain_scores(depth: int, merge_from: int) -> None:
    """Of a single layer, the first is the last."""
    expected = [plain(pair, merge_from, depth) for pair in ALL_PAIRS]
    for grouped in (False, True):
        found = score(engine_of(model(merge_from, depth), grouped=grouped), ALL_PAIRS)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_the_plain_scores_are_the_published_ones(published_pair: Pair) -> None:
    """The plain implementation itself, against what the published code computed in advance."""
    published, scorer = np.load(GOLDEN / "expected.npz"), open_stage2(published_pair.stage2)
    ends = published["token_lengths"].cumsum()
    token_ids = [ids.tolist() for ids in np.split(published["token_ids"], ends[:-1])]
    asked = [token_ids[query] for query in published["queries"]]
    z_t = np.split(published["z_t"], np.cumsum([len(ids) for ids in asked])[:-1])
    found = [
        plain_score(
            scorer.state_dict(),
            heads=scorer.config.text.heads,
            z_t=torch.from_numpy(states),
            token_ids=ids,
            image_tokens=torch.from_numpy(image),
        )
        for states, ids in zip(z_t, asked, strict=True)
        for image in published["image_tokens"]
    ]
    expected = published["stage2_logits"].ravel()
    np.testing.assert_allclose(found, expected, rtol=0, atol=PUBLISHED_STATES)


def test_the_plain_scores_tell_pairs_and_merges_apart() -> None:
    """Else the tests above would say nothing."""
    scores = np.array([[plain(pair, merge) for merge in range(LAYERS + 1)] for pair in ALL_PAIRS])
    distances = np.abs(scores.ravel()[:, None] - scores.ravel())
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 2 * TOLERANCE


@given(PAIRS, st.lists(st.booleans(), min_size=14, max_size=14), MEMORY)
@settings(deadline=None)
def test_a_score_does_not_depend_on_what_else_is_in_the_list(
    pairs: list[Row], kept: list[bool], memory: int
) -> None:
    chosen = [row for row in range(len(pairs)) if kept[row]]
    together = np.array(score(engine_of(model(1)), pairs))[chosen]
    apart = score(engine_of(model(1), memory), [pairs[row] for row in chosen])
    np.testing.assert_allclose(apart, together, rtol=0, atol=TOLERANCE)


@given(PAIRS, MEMORY)
@settings(deadline=None)
def test_every_pair_is_scored_exactly_once(pairs: list[Row], memory: int) -> None:
    blocks = []

    def counting(weights: Any, x: Tensor) -> Tensor:
        blocks.append(x.shape[1])
        return layers.read_scores(weights, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "read_scores", counting)
        score(engine_of(model(1), memory), pairs)
    assert sum(blocks) == len(pairs)
    assert memory > 1 or set(blocks) == {1}
    assert memory < 2**26 or len(blocks) == 1


@pytest.mark.parametrize(("memory", "times"), [(2**26, 1), (1, 2 * len(ALL_PAIRS))])
def test_queries_are_begun_once_where_memory_keeps_them(
    memory: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, counted = RerankEngine._begin_block, []

    def counting(self: RerankEngine, queries: np.ndarray) -> Tensor:
        counted.append(len(queries))
        return begin(self, queries)

    monkeypatch.setattr(RerankEngine, "_begin_block", counting)
    scorer = engine_of(model(1), memory)
    assert score(scorer, ALL_PAIRS) == score(scorer, ALL_PAIRS)
    assert len(counted) == times


@pytest.mark.parametrize("grouped", [False, True])
def test_no_pairs_no_scores(grouped: bool) -> None:
    assert score(engine_of(model(1), grouped=grouped), []) == []
    nobody = RerankEngine(model(1), FusedQueries.of([], []), device=CPU, grouped=grouped)
    assert score(nobody, []) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(value: float) -> None:
    broken = tiny_stage2()
    with torch.no_grad():
        broken.score_head.output.weight[0, 0] = value
        broken.score_head.hidden.bias[0] = 100.0  # else its unit may be off, and inf * 0 is NaN
    with pytest.raises(NonFiniteError, match="stage 2 scores are not finite"):
        score(engine_of(broken), [(0, 0), (1, 1)])


class SmallMemory:
    """Lets no more rows than ``tokens`` attend to images, and remembers how many asked."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.asked = tokens, list[int]()

    def attend_others(self, layer: Any, sizes: Any, x: Tensor, *others: Any) -> Tensor:
        self.asked.append(x.shape[1])
        if x.shape[1] > self.tokens:
            torch.empty(2**55)  # what a CPU that has no memory raises
        return layers.attend_others(layer, sizes, x, *others)


def test_out_of_memory_halves_the_block_once_and_for_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokens, scorer, small = sum(LENGTHS) * IMAGES, engine_of(model(1)), SmallMemory(60)
    expected = score(scorer, ALL_PAIRS)
    monkeypatch.setattr(engine, "attend_others", small.attend_others)
    with caplog.at_level("WARNING"):
        found = score(scorer, ALL_PAIRS)
        again = score(scorer, ALL_PAIRS)
    np.testing.assert_allclose([found, again], [expected, expected], rtol=0, atol=TOLERANCE)
    assert caplog.messages == ["out of memory: going on with 46 tokens at a time"]
    assert small.asked[0] == tokens == 92
    assert max(small.asked[1:]) <= 46  # remembered


def test_out_of_memory_with_one_pair_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "attend_others", SmallMemory(0).attend_others)
    with pytest.raises(PreflightError, match="too small to re-rank a single pair") as caught:
        score(engine_of(model(1)), ALL_PAIRS)
    assert "--batch" in caught.value.remedy


def test_queries_that_cannot_be_kept_are_begun_for_each_block(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = engine_of(model(1), memory=2**16)
    expected = score(scorer, ALL_PAIRS)
    begin, scorer = RerankEngine._begin, engine_of(model(1), memory=2**16)

    def begin_few(self: RerankEngine, queries: np.ndarray) -> Any:
        if len(queries) == QUERIES:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return begin(self, queries)

    monkeypatch.setattr(RerankEngine, "_begin", begin_few)
    few = [pair for pair in ALL_PAIRS if pair[0] < QUERIES - 1]
    with caplog.at_level("WARNING"):
        found = score(scorer, few)
    np.testing.assert_allclose(found, expected[: len(few)], rtol=0, atol=TOLERANCE)
    assert caplog.messages == ["out of memory: queries are begun again for each block"]


def test_another_runtime_error_is_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> NoReturn:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(engine, "attend_others", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        score(engine_of(model(1)), ALL_PAIRS)
