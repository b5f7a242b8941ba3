"""Every variant of stage 2 is what its table says, in the engine and in the published loop."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cir_core.ports import FusedQueries, Load, Scorer
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.dual.variant import Variant
from cir_core.rerankers.plain import ReferenceScorer
from tests.support.plain_reranker import plain_text, plain_variant
from tests.support.tiny_models import TEXT, VISION, stage2_config, tiny_stage2
from tests.support.tolerances import rounding, text_sums

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
QUERIES, IMAGES, LAYERS = 5, 4, 3
LENGTHS = (2, 7, 3, 7, 4)
REFERENCE_OF_QUERY = np.array([1, 0, 1, 2, 0])
TOLERANCE = rounding(text_sums(TEXT, VISION, tokens=max(LENGTHS)), magnitude=3)

VARIANTS = {
    "paper": Variant(),
    "met in the head": Variant(merging="head"),
    "single": Variant(encoder="single"),
    "image": Variant(reference="image"),
    "image, met in the head": Variant(reference="image", merging="head"),
    "single, image": Variant(encoder="single", reference="image"),
    "text alone": Variant(encoder="single", reference="none"),
    "image alone": Variant(reference="image", text=False),
}


@dataclass(frozen=True)
class Asked:
    """What is asked; image tokens of candidates and references."""

    images: Tensor
    references: Tensor
    z_t: list[Tensor]
    token_ids: list[list[int]]

    def queries(self) -> FusedQueries:
        z_t = [one.numpy() for one in self.z_t]
        return FusedQueries.of(
            z_t, self.token_ids, references=Given(self.references, REFERENCE_OF_QUERY)
        )


@dataclass(frozen=True)
class Given:
    """``References`` that are in memory."""

    tokens: Tensor
    of_query: np.ndarray

    def states(self, references: np.ndarray) -> Tensor:
        return self.tokens[torch.from_numpy(references)]


@cache
def asked() -> Asked:
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    shape = (VISION.tokens, VISION.width)
    return Asked(
        torch.randn(IMAGES, *shape),
        torch.randn(3, *shape),
        [torch.randn(length, TEXT.width) for length in LENGTHS],
        [rng.integers(0, TEXT.vocabulary_size, length).tolist() for length in LENGTHS],
    )


@cache
def model(name: str, merge_from: int, layers: int = LAYERS) -> Stage2Model:
    return tiny_stage2(merge_from=merge_from, layers=layers, variant=VARIANTS[name])


@cache
def plain(name: str, merge_from: int, query: int, image: int, layers: int = LAYERS) -> float:
    """Which branches there are, and what they look at, is written here once more."""
    world, state = asked(), model(name, merge_from, layers).state_dict()
    text, z_t = plain_text(state, world.token_ids[query]), world.z_t[query]
    candidate, reference = world.images[image], world.references[REFERENCE_OF_QUERY[query]]
    nlvr = [text, text], [(0, reference), (1, candidate)]
    branches, looks = {
        "paper": ([z_t, text], [(0, candidate), (1, candidate)]),
        "met in the head": ([z_t, text], [(0, candidate), (1, candidate)]),
        "single": ([text], [(0, z_t), (0, candidate)]),
        "image": nlvr,
        "image, met in the head": nlvr,
        "single, image": ([text], [(0, reference), (0, candidate)]),
        "text alone": ([text], [(0, candidate)]),
        "image alone": nlvr,
    }[name]
    meet = "head" not in name
    return plain_variant(
        state, heads=TEXT.heads, branches=branches, looks=looks, meet_in_layers=meet
    )


def score(scorer: Scorer, pairs: list[tuple[int, int]]) -> np.ndarray:
    columns = np.array(pairs, dtype=int).reshape(-1, 2)
    return scorer.score(scorer.prepare(asked().images), columns[:, 0], columns[:, 1])


PAIRS = st.lists(
    st.tuples(st.integers(0, QUERIES - 1), st.integers(0, IMAGES - 1)), min_size=1, max_size=14
)


@pytest.mark.parametrize("name", VARIANTS)
@given(pairs=PAIRS, merge_from=st.sampled_from([0, 1, LAYERS]), memory=st.sampled_from([1, 2**26]))
@settings(deadline=None, max_examples=12)
def test_engine_and_published_loop_give_the_plain_scores(
    name: str, pairs: list[tuple[int, int]], merge_from: int, memory: int
) -> None:
    of = model(name, merge_from)
    expected = [plain(name, merge_from, *pair) for pair in pairs]
    for grouped in (False, True):
        engine = RerankEngine(of, asked().queries(), device=CPU, memory=memory, grouped=grouped)
        np.testing.assert_allclose(score(engine, pairs), expected, rtol=0, atol=TOLERANCE)
    reference = ReferenceScorer(of, asked().queries())
    np.testing.assert_allclose(score(reference, pairs), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("depth", [1, 2])
def test_shallow_ones_and_one_forward_pass_agree(name: str, depth: int) -> None:
    of, world = model(name, 1, depth), asked()
    every = [(query, image) for query in range(QUERIES) for image in range(IMAGES)]
    expected = [plain(name, 1, *pair, layers=depth) for pair in every]
    engine = RerankEngine(of, world.queries(), device=CPU, memory=2**26)
    np.testing.assert_allclose(score(engine, every), expected, rtol=0, atol=TOLERANCE)
    query, image = np.array(every).T
    ids = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, world.token_ids)), True)
    z_t = torch.nn.utils.rnn.pad_sequence(world.z_t, True)
    given = of(
        z_t[query], ids[query], torch.tensor(LENGTHS)[query], world.images[image],
        world.references[REFERENCE_OF_QUERY[query]],
    )  # fmt: skip
    np.testing.assert_allclose(given.detach(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("layers", "merge_from"), [(1, 0), (3, 1)])
def test_flops_are_those_that_torch_counts(name: str, layers: int, merge_from: int) -> None:
    rng = np.random.default_rng(1)
    of, lengths = model(name, merge_from, layers), np.array(LENGTHS)
    query, image = rng.integers(0, QUERIES, 6), rng.integers(0, IMAGES, 6)
    load = Load.of(lengths[query], image, images=IMAGES)
    config = of.config

    def counted(scorer: Scorer) -> int:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            scorer.score(scorer.prepare(asked().images), query, image)
        return counter.get_total_flops()

    assert counted(ReferenceScorer(of, asked().queries())) == config.plain_flops(load)
    engine = RerankEngine(of, asked().queries(), device=CPU, memory=2**26)
    begun = config.beginning_flops(lengths)
    assert counted(engine) == begun + config.scoring_flops(load)
    assert counted(engine) == config.scoring_flops(load)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_reads_what_it_says(name: str) -> None:
    """What it does not read changes no score."""
    of, world = model(name, 1), asked()
    other = Asked(world.images, world.references, [one + 1 for one in world.z_t], world.token_ids)
    far = Asked(world.images, world.references + 1, world.z_t, world.token_ids)
    before = score(RerankEngine(of, world.queries(), device=CPU), [(1, 1)])
    for asking, reads in ((other, of.config.state_width > 0), (far, of.config.reads_references)):
        after = score(RerankEngine(of, asking.queries(), device=CPU), [(1, 1)])
        assert (before != after).any() == reads
    tokens = of.config.tokenizer()(["is red", "is blue"])
    assert (tokens[0] == tokens[1]) == (name == "image alone")


def test_the_papers_variant_is_not_written_and_another_is() -> None:
    assert "variant" not in stage2_config().model_dump()
    written = stage2_config(variant=VARIANTS["single, image"]).model_dump()
    assert written["variant"]["encoder"] == "single"
    assert Stage2Config.model_validate(written).variant == VARIANTS["single, image"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"reference": "none"}, "say single"),
        ({"encoder": "single", "merging": "head"}, "no branches that could meet"),
        ({"text": False}, "z_t holds the text"),
        ({"encoder": "single", "reference": "none", "text": False}, "nothing is left of a query"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Variant.model_validate(fields)
