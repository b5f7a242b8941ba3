"""Candidate-major re-ranking gives each pair the score that a plain forward pass gives it alone."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cir_core.errors import NonFiniteError
from cir_core.models.reranker import Stage2Model
from cir_core.rerank import engine
from cir_core.rerank.engine import FusedQueries, score_pairs
from tasks.models import open_stage2
from tests.support.plain_reranker import plain_score
from tests.support.small_benchmarks import Pair
from tests.support.tiny_checkpoints import GOLDEN
from tests.support.tiny_models import TEXT, VISION, tiny_stage2

LAYERS = 3
QUERIES, IMAGES = 5, 4
LENGTHS = (2, 7, 3, 7, 4)

TOLERANCE = 1e-5
"""Scores are of order 1 and sums are short: fp32 differs from fp64 by less."""

Row = tuple[int, int]
"""A pair to score: query and image."""

PAIRS = st.lists(
    st.tuples(st.integers(0, QUERIES - 1), st.integers(0, IMAGES - 1)), min_size=1, max_size=14
)
MERGES = st.integers(0, LAYERS)
CHUNKS = st.integers(1, 6)
BYTES = st.sampled_from([1, 2_000, 5_000, 2**26])
"""A pair takes 2 * 5 * 16 * 4 = 640 bytes: 1, 3 and 7 pairs a block, and everything in one."""


@dataclass(frozen=True)
class World:
    image_tokens: Tensor
    queries: FusedQueries


@cache
def world() -> World:
    rng = np.random.default_rng(3)
    image_shape = (IMAGES, VISION.tokens, VISION.width)
    return World(
        torch.from_numpy(rng.standard_normal(image_shape).astype(np.float32)),
        FusedQueries(
            [rng.standard_normal((n, TEXT.width)).astype(np.float32) for n in LENGTHS],
            [rng.integers(0, TEXT.vocabulary_size, n).tolist() for n in LENGTHS],
        ),
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
        z_t=torch.from_numpy(world().queries.z_t[query]),
        token_ids=world().queries.token_ids[query],
        image_tokens=world().image_tokens[image],
    )


def score(scorer: Stage2Model, pairs: list[Row]) -> list[float]:
    columns = np.array(pairs, dtype=int).reshape(-1, 2)
    here = world()
    found = score_pairs(scorer, here.image_tokens, here.queries, columns[:, 0], columns[:, 1])
    assert found.dtype == np.float32
    return found.tolist()


@given(PAIRS, MERGES, CHUNKS, BYTES)
@settings(deadline=None)
def test_every_plan_gives_the_plain_scores(
    pairs: list[Row], merge_from: int, chunk: int, gathered: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "CHUNK", chunk)
        patch.setattr(engine, "GATHERED_BYTES", gathered)
        found = score(model(merge_from), pairs)
    expected = [plain(pair, merge_from) for pair in pairs]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("merge_from", [0, 1, 2])
def test_shallow_models_give_the_plain_scores(layers: int, merge_from: int) -> None:
    """Of a single layer, the first is the last: begin computes position 0 alone."""
    pairs = [(query, image) for query in range(QUERIES) for image in range(IMAGES)]
    expected = [plain(pair, merge_from, layers) for pair in pairs]
    found = score(model(merge_from, layers), pairs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_the_plain_scores_are_the_published_ones(pair: Pair) -> None:
    """The plain implementation itself, against what the published code computed in advance."""
    published, scorer = np.load(GOLDEN / "expected.npz"), open_stage2(pair.stage2)
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
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_the_plain_scores_tell_pairs_and_merges_apart() -> None:
    """Else the tests above would say nothing."""
    pairs = [(query, image) for query in range(QUERIES) for image in range(IMAGES)]
    scores = np.array([[plain(pair, merge) for merge in range(LAYERS + 1)] for pair in pairs])
    distances = np.abs(scores.ravel()[:, None] - scores.ravel())
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 2 * TOLERANCE


@given(PAIRS, st.lists(st.booleans(), min_size=14, max_size=14), CHUNKS, BYTES)
@settings(deadline=None)
def test_a_score_does_not_depend_on_what_else_is_in_the_list(
    pairs: list[Row], kept: list[bool], chunk: int, gathered: int
) -> None:
    chosen = [row for row in range(len(pairs)) if kept[row]]
    together = np.array(score(model(1), pairs))[chosen]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "CHUNK", chunk)
        patch.setattr(engine, "GATHERED_BYTES", gathered)
        apart = score(model(1), [pairs[row] for row in chosen])
    np.testing.assert_allclose(apart, together, rtol=0, atol=TOLERANCE)


@given(PAIRS, CHUNKS, BYTES)
@settings(deadline=None)
def test_every_pair_is_scored_exactly_once(pairs: list[Row], chunk: int, gathered: int) -> None:
    class Counting(Stage2Model):
        counted = 0

        def finish(self, queries: object, candidates: object, *pairs: Tensor) -> Tensor:
            self.counted += len(pairs[0])
            return super().finish(queries, candidates, *pairs)  # type: ignore[arg-type]

    counting = Counting(model(1).config).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "CHUNK", chunk)
        patch.setattr(engine, "GATHERED_BYTES", gathered)
        score(counting, pairs)
    assert counting.counted == len(pairs)


def test_no_pairs_no_scores() -> None:
    assert score(model(1), []) == []
    nobody = FusedQueries([], [])
    none = np.array([], dtype=int)
    assert score_pairs(model(1), world().image_tokens[:0], nobody, none, none).shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(value: float) -> None:
    broken = tiny_stage2()
    with torch.no_grad():
        broken.score_head.output.weight[0, 0] = value
        broken.score_head.hidden.bias[0] = 100.0  # else its unit may be off, and inf * 0 is NaN
    with pytest.raises(NonFiniteError, match="stage 2 scores are not finite"):
        score(broken, [(0, 0), (1, 1)])
