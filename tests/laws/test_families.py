"""What every family of models promises to the stages, whatever it computes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cir_core.errors import CheckpointRefused
from cir_core.families import FAMILIES, PUBLISHED_RETRIEVER, require_pair
from cir_core.ports import FusedQueries, Load, Reranker, Retriever
from cir_core.rerankers.dual.reranker import DualReranker
from flows.settings import shipped_model
from storage.models.folders import write_checkpoint
from tasks.models.opening import (
    open_encoder,
    open_reranker,
    open_retriever,
    read_reranker_config,
    read_retriever_config,
)
from tests.support.tiny_models import TEXT, VISION, tiny_stage1, tiny_stage2
from tests.support.tiny_towers import tiny_clip, tiny_inversion, tiny_siglip
from tests.support.tolerances import rounding, text_sums, vision_sums
from tests.support.toy_family import ToyReranker, toy, toys_known

CPU = torch.device("cpu")
LENGTHS = (4, 9, 2, 4, 7, 3, 11, 5)
TEXTS = [list(range(2, 2 + length)) for length in LENGTHS]


@dataclass(frozen=True)
class Models:
    """A pair, the modules behind it, and how many terms its longest sum has (``rounding``)."""

    first: Any
    second: Any
    port: Callable[[Any], Any]
    sums: int

    @property
    def retriever(self) -> Retriever:
        retriever: Retriever = self.first
        return retriever

    @property
    def reranker(self) -> Reranker:
        reranker: Reranker = self.port(self.second)
        return reranker


def published(layers: int = 3) -> Models:
    one, two = tiny_stage1(layers=layers), tiny_stage2(layers=layers)
    two.vision.load_state_dict(one.vision.state_dict())
    sums = vision_sums(VISION) + 2 * text_sums(TEXT, VISION, tokens=max(LENGTHS))
    return Models(one, two, DualReranker, sums)


def alone(retriever: nn.Module) -> Models:
    """Without a reranker that shares its encoder."""
    sums = 2 * (vision_sums(VISION) + text_sums(TEXT, VISION, tokens=max(LENGTHS)))
    return Models(retriever, None, DualReranker, sums)


def toys() -> Models:
    return Models(toy("toy stage 1"), toy("toy stage 2"), ToyReranker, 100)


FAMILIES_HELD = {
    "as published": published,
    "of one layer": lambda: published(layers=1),
    "toys": toys,
}

RETRIEVERS_HELD = FAMILIES_HELD | {
    "clip": lambda: alone(tiny_clip()),
    "siglip": lambda: alone(tiny_siglip()),
    "inversion": lambda: alone(tiny_inversion()),
}
each_retriever = pytest.mark.parametrize("models", RETRIEVERS_HELD, indirect=True)


@pytest.fixture(params=FAMILIES_HELD)
def models(request: pytest.FixtureRequest) -> Iterator[Models]:
    with toys_known(), torch.inference_mode():
        yield RETRIEVERS_HELD[request.param]()


def test_every_kind_that_is_known_is_held_to_these_laws() -> None:
    models = [build() for build in RETRIEVERS_HELD.values()]
    held = {module.config.kind for one in models for module in (one.first, one.second) if module}
    elsewhere = {"stage1": "blip without its matching head", "vlm": "tests/property/test_vlm.py"}
    assert FAMILIES.keys() - elsewhere.keys() <= held


def pixels(models: Models, count: int = 8) -> Tensor:
    size = models.retriever.encoder.pictures.size
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def states(models: Models) -> Tensor:
    return models.retriever.encoder.see(pixels(models))


def fused(models: Models) -> FusedQueries:
    answers = models.retriever.ask(TEXTS, states(models))
    none = [np.empty((length, 0), np.float32) for length in LENGTHS]
    z_t = none if answers.z_t is None else [
        state[:length].numpy() for state, length in zip(answers.z_t, LENGTHS, strict=True)
    ]  # fmt: skip
    return FusedQueries.of(z_t, TEXTS)


def close(models: Models, found: Tensor, expected: Tensor) -> None:
    atol = rounding(models.sums, magnitude=5)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# --- retrievers


@each_retriever
def test_an_image_is_seen_the_same_alone_and_among_others(models: Models) -> None:
    encoder, each = models.retriever.encoder, pixels(models)
    seen = encoder.see(each)
    assert seen.shape[1:] == encoder.shape
    assert models.retriever.config.pictures == encoder.pictures
    assert int(np.prod(encoder.shape)) == models.retriever.config.widths.image
    for row in range(len(each)):
        close(models, encoder.see(each[row : row + 1])[0], seen[row])
    order = torch.randperm(len(each), generator=torch.Generator().manual_seed(1))
    close(models, encoder.see(each[order]), seen[order])


@each_retriever
def test_embeddings_have_unit_length_and_depend_on_their_image_alone(models: Models) -> None:
    retriever, seen = models.retriever, states(models)
    vectors = retriever.embed(seen)
    assert vectors.shape == (8, retriever.config.embedding)
    close(models, vectors.norm(dim=1), torch.ones(8))
    for row in range(8):
        close(models, retriever.embed(seen[row : row + 1])[0], vectors[row])


@each_retriever
def test_a_query_is_understood_the_same_beside_longer_ones(models: Models) -> None:
    retriever, seen = models.retriever, states(models)
    answers = retriever.ask(TEXTS, seen)
    close(models, answers.embeddings.norm(dim=1), torch.ones(8))
    assert (answers.z_t is None) == (retriever.config.widths.z_t == 0)
    for row, text in enumerate(TEXTS):
        alone = retriever.ask([text], seen[row : row + 1])
        close(models, alone.embeddings[0], answers.embeddings[row])
        if answers.z_t is not None and alone.z_t is not None:
            close(models, alone.z_t[0], answers.z_t[row, : len(text)])
            assert answers.z_t.shape[2] == retriever.config.widths.z_t


@each_retriever
def test_texts_are_read_as_token_ids_within_the_models_positions(models: Models) -> None:
    config = models.retriever.config
    ids = config.tokenizer()(["is red", "", "is red"])
    assert ids[0] == ids[2]
    assert all(0 < len(text) <= config.positions for text in ids)
    assert config.tokenizer().without_known_words(["", "qqq zzz"])[0] is False


@each_retriever
def test_in_a_lower_precision_embeddings_are_nearly_the_same_and_still_in_fp32(
    models: Models,
) -> None:
    """8 bits are a relative error of 0.4 percent a rounding, and there are some fifty in a row."""
    retriever, encoder = models.retriever, models.retriever.encoder
    if "bf16" not in FAMILIES[retriever.config.kind].precisions:
        pytest.skip("the family has no bf16")
    images, asked = retriever.embed(states(models)), retriever.ask(TEXTS, states(models)).embeddings
    digest = encoder.digest
    encoder.cast("bf16")
    retriever.cast("bf16")
    assert (encoder.digest, encoder.precision) == (digest, "bf16")
    seen = states(models)
    assert seen.dtype == torch.bfloat16
    for found, exact in ((retriever.embed(seen), images), (retriever.ask(TEXTS, seen)[0], asked)):
        assert found.dtype == torch.float32
        close(models, found.norm(dim=1), torch.ones(8))
        assert not torch.equal(found, exact)
        assert (found * exact).sum(dim=1).min() > 1 - 0.05**2


# --- what it costs


def counted(work: Callable[[], object]) -> int:
    """By torch, which knows attention on the CPU only as the products it is made of."""
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        work()
    return counter.get_total_flops()


@each_retriever
def test_configs_count_what_torch_counts(models: Models) -> None:
    """Texts of one length, so that there is no padding."""
    retriever, seen, texts = models.retriever, states(models), [TEXTS[1]] * 8
    config = retriever.config
    assert counted(lambda: retriever.encoder.see(pixels(models))) == 8 * config.seeing_flops()
    lengths = np.full(8, len(TEXTS[1]))
    assert counted(lambda: retriever.ask(texts, seen)) == config.asking_flops(lengths)
    apart = config.asking_flops(lengths[:3]) + config.asking_flops(np.array([2]))
    assert config.asking_flops(np.append(lengths[:3], 2)) == apart
    assert config.asking_flops(np.array([], dtype=int)) == 0


def test_the_published_vit_costs_111_gflop() -> None:
    assert PUBLISHED_RETRIEVER.seeing_flops() == pytest.approx(111e9, rel=0.01)


@pytest.mark.parametrize("images", [2, 8], ids=["many pairs an image", "few pairs an image"])
def test_rerankers_count_what_torch_counts(models: Models, images: int) -> None:
    """Of pairs whose queries are begun, so when they are scored again."""
    seen, reranker = states(models)[:images], models.reranker
    scorer = reranker.open(fused(models), device=CPU, memory=None, precision="fp32")
    query, image = np.repeat(np.arange(8), 2), np.arange(16) % images

    def work() -> None:
        scorer.score(scorer.prepare(seen), query, image)

    work()
    load = Load.of(np.array(LENGTHS)[query], image, images=images)
    assert counted(work) == reranker.config.scoring_flops(load)


def test_no_pairs_cost_nothing_and_sharing_is_no_dearer(models: Models) -> None:
    config, none = models.reranker.config, np.array([], dtype=int)
    assert config.scoring_flops(Load.of(none, none, images=3)) == 0
    load = Load.of(np.repeat(LENGTHS, 3), np.tile(np.arange(3), 8), images=3)
    shared = config.scoring_flops(load) + config.beginning_flops(np.array(LENGTHS))
    assert shared <= config.plain_flops(load)


# --- folders


def test_what_is_written_is_opened_again_to_the_bit(models: Models, tmp_path: Path) -> None:
    for stage, module in (("1", models.first), ("2", models.second)):
        write_checkpoint(tmp_path / stage, module.config.model_dump(), module.state_dict())
    retriever, reranker = open_retriever(tmp_path / "1"), open_reranker(tmp_path / "2")
    assert read_retriever_config(tmp_path / "1") == models.retriever.config
    assert read_reranker_config(tmp_path / "2") == models.reranker.config
    seen = states(models)
    assert torch.equal(retriever.embed(seen), models.retriever.embed(seen))
    ours, theirs = (one.ask(TEXTS, seen).embeddings for one in (models.retriever, retriever))
    assert torch.equal(ours, theirs)
    encoders = (retriever.encoder, reranker.encoder, open_encoder(tmp_path / "1"))
    assert {one.digest for one in encoders} == {models.retriever.encoder.digest}
    require_pair(retriever, reranker)
    with pytest.raises(CheckpointRefused, match="not a stage 1 model"):
        open_retriever(tmp_path / "2")
    with pytest.raises(CheckpointRefused, match="not a stage 2 model"):
        open_reranker(tmp_path / "1")


def test_another_encoder_has_another_name_and_makes_no_pair(models: Models) -> None:
    """Whichever weight it is that differs. A reranker without z_t may have another."""
    ours, theirs = models.retriever.encoder, models.reranker.encoder
    digest, module = ours.digest, theirs
    assert isinstance(module, nn.Module)
    assert theirs.digest == digest
    for weight in module.parameters():
        kept = weight.clone()
        weight.add_(0.5)
        assert ours.digest == digest != theirs.digest
        assert len(ours.differing(theirs)) == 1
        if models.reranker.config.state_width:
            with pytest.raises(CheckpointRefused, match="different visual encoders"):
                require_pair(models.retriever, models.reranker)
        else:
            require_pair(models.retriever, models.reranker)
        weight.copy_(kept)
    require_pair(models.retriever, models.reranker)


def test_a_reranker_says_whom_it_cannot_follow() -> None:
    mine, theirs = published(), toys()
    assert mine.reranker.config.objections(mine.retriever.config) == []
    assert mine.reranker.config.objections(theirs.retriever.config)
    assert theirs.reranker.config.objections(mine.retriever.config)


@pytest.mark.parametrize("build", [tiny_clip, tiny_siglip, tiny_inversion])
def test_a_reranker_that_reads_z_t_refuses_a_retriever_without_and_says_what_helps(
    build: Callable[[], Any],
) -> None:
    with pytest.raises(CheckpointRefused, match="reads z_t, and this stage 1 has none") as refusal:
        require_pair(build(), open_reranker(shipped_model("stage2")))
    assert "a stage 2 that reads images itself" in refusal.value.remedy


# --- scorers


def test_scores_are_of_their_pairs_alone_and_in_the_order_asked(models: Models) -> None:
    seen = states(models)
    scorer = models.reranker.open(fused(models), device=CPU, memory=None, precision="fp32")
    images = scorer.prepare(seen)
    query, image = (axis.ravel() for axis in np.indices((8, 8)))
    every = scorer.score(images, query, image)
    assert every.dtype == np.float32
    assert len(every) == 64
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 64, 40)  # with repetitions
    close(models, torch.from_numpy(scorer.score(images, query[drawn], image[drawn])),
          torch.from_numpy(every[drawn]))  # fmt: skip
    few = scorer.prepare(seen[2:4])
    close(models, torch.from_numpy(scorer.score(few, np.array([5]), np.array([1]))),
          torch.from_numpy(every[5 * 8 + 3 : 5 * 8 + 4]))  # fmt: skip
    empty = np.array([], dtype=int)
    assert scorer.score(images, empty, empty).shape == (0,)
