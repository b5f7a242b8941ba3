"""Training: schedules and batches by their laws, losses by hand, tiny runs of every objective."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, pairwise
from math import cos, exp, log, pi
from typing import Any, NoReturn, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cir_core.errors import PreflightError
from cir_core.layers.config import VisionConfig
from cir_core.layers.preprocess import CLIP_MEAN, Preprocess
from cir_core.layers.vision import normalise
from cir_core.training.batches import (
    drawn_ways,
    epoch_rows,
    length_sorted_rows,
    steps_per_epoch,
)
from cir_core.training.gradients import Compute, Objective, Splits, accumulate
from cir_core.training.loop import (
    Diverged,
    Progress,
    fit,
    learning_rate,
    optimiser,
    total_steps,
)
from cir_core.training.losses import accuracy, choice, contrast
from cir_core.training.presets import PRESETS
from cir_core.training.pretrain import DescribedImages, Pretraining
from cir_core.training.recipes import PretrainRecipe, Recipe, Stage1Recipe, Stage2Recipe
from cir_core.training.stage1 import Stage1Training
from cir_core.training.stage2 import Stage2Batch, Stage2Training, stage2_from_base
from cir_core.training.triplets import Triplets, top_candidates
from tests.support.tiny_models import VISION, stage2_config, tiny_stage1, tiny_stage2
from tests.support.tolerances import LAW

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")

# the schedule


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({"epochs": 10, "batch": 4, "learning_rate": 0.5} | changes)


def rate_at(asked: Recipe, step: int) -> float:
    """Ten epochs of ten batches of four."""
    return learning_rate(asked, step, 40)


def test_the_rate_rises_linearly_then_falls_as_a_cosine_to_zero() -> None:
    warm = recipe(warmup=10)
    assert rate_at(warm, 0) == 0.05
    assert rate_at(warm, 4) == 0.25
    assert rate_at(warm, 9) == 0.5
    assert rate_at(warm, 10) == 0.5
    assert rate_at(warm, 55) == pytest.approx(0.25)  # half of the way down
    assert rate_at(warm, 99) == pytest.approx(0.25 * (1 + cos(pi * 89 / 90)))
    assert rate_at(warm, 100) == pytest.approx(0, abs=1e-12)


def test_without_warm_up_the_first_rate_is_the_highest() -> None:
    assert rate_at(recipe(warmup=0), 0) == 0.5


def test_the_published_schedule_falls_once_an_epoch() -> None:
    published = recipe(schedule="epoch", epochs=4)
    rates = [rate_at(published, step) for step in range(40)]
    expected = [0.5 * 0.5 * (1 + cos(pi * epoch / 4)) for epoch in range(4)]
    assert rates == [pytest.approx(rate) for rate in expected for _ in range(10)]


@given(st.integers(1, 50), st.integers(0, 60))
def test_the_rate_is_positive_and_never_above_the_recipes(steps: int, warmup: int) -> None:
    asked = recipe(epochs=steps, warmup=warmup)
    rates = [learning_rate(asked, step, 4) for step in range(steps)]
    assert all(0 < rate <= 0.5 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_every_preset_warms_up_before_it_ends() -> None:
    for preset in PRESETS.values():
        for part in filter(None, (preset.pretrain, preset.stage1, preset.stage2)):
            assert part.warmup < total_steps(part, 18_000)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (1.5, 3), (0.1, 1), (10.5, 21)])
def test_an_epoch_is_the_full_batches_of_one_pass(epochs: float, steps: int) -> None:
    assert total_steps(recipe(epochs=epochs), 11) == steps


# batches

TOTAL, BATCH, SEED = st.integers(1, 40), st.integers(1, 12), st.integers(0, 9)


@given(TOTAL, BATCH, SEED, st.integers(1, 4))
def test_an_epoch_has_full_batches_and_no_example_twice(
    total: int, batch: int, seed: int, group: int
) -> None:
    per_epoch = max(1, total // batch)
    for epoch in range(2):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        batches = [epoch_rows(total, batch, seed, step, group=group) for step in steps]
        assert all(len(rows) == min(batch, total) for rows in batches)
        seen = np.concatenate(batches).tolist()
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(range(total))


@given(st.integers(1, 8), st.integers(1, 3), SEED, st.integers(1, 4))
def test_grouped_examples_share_a_batch(groups: int, per_batch: int, seed: int, size: int) -> None:
    total, batch = groups * size, per_batch * size
    for step in range(4):
        rows = epoch_rows(total, batch, seed, step, group=size)
        members = [set(range(g * size, (g + 1) * size)) for g in set((rows // size).tolist())]
        assert set(rows.tolist()) == set().union(*members)


@given(st.lists(st.integers(2, 9), min_size=1, max_size=40), BATCH, SEED, st.integers(1, 4))
def test_an_epoch_sorted_by_length_has_no_example_twice(
    lengths: list[int], batch: int, seed: int, pool: int
) -> None:
    per_epoch = steps_per_epoch(len(lengths), batch)
    for epoch in range(2):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        batches = [
            length_sorted_rows(np.array(lengths), batch, seed, step, pool=pool) for step in steps
        ]
        assert all(len(rows) == min(batch, len(lengths)) for rows in batches)
        seen = np.concatenate(batches).tolist()
        assert len(set(seen)) == len(seen)


@given(st.lists(st.integers(2, 9), min_size=4, max_size=40), st.integers(1, 4), SEED)
def test_within_a_pool_batches_are_intervals_of_length(
    lengths: list[int], batch: int, seed: int
) -> None:
    per_epoch = len(lengths) // batch
    ranges = sorted(
        (min(found), max(found))
        for step in range(per_epoch)
        for found in [
            [lengths[r] for r in length_sorted_rows(np.array(lengths), batch, seed, step, pool=99)]
        ]
    )
    assert all(first[1] <= second[0] for first, second in pairwise(ranges))


def test_batches_are_functions_of_seed_and_step_alone() -> None:
    lengths = [2, 3, 4] * 20

    def batches(seed: int) -> list[list[int]]:
        plain = [epoch_rows(60, 7, seed, step, group=2).tolist() for step in range(20)]
        by_length = [
            length_sorted_rows(np.array(lengths), 7, seed, step).tolist() for step in range(20)
        ]
        return plain + by_length

    torch.manual_seed(5)
    first = batches(1)
    assert batches(1) == first
    assert batches(2) != first
    assert epoch_rows(60, 7, 1, 0).tolist() != epoch_rows(60, 7, 1, 8).tolist()  # next epoch


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), SEED)
def test_each_epoch_draws_one_of_an_examples_wordings(ways: list[int], seed: int) -> None:
    drawn = [drawn_ways(np.array(ways), seed, epoch) for epoch in range(40)]
    assert all((way < count).all() for way in drawn for count in [np.array(ways)])
    for example, count in enumerate(ways):
        assert {int(way[example]) for way in drawn} <= set(range(count))
    assert drawn[0].tolist() == drawn_ways(np.array(ways), seed, 0).tolist()


def test_wordings_are_drawn_evenly() -> None:
    drawn = drawn_ways(np.full(40_000, 4), 1, 2)
    shares = np.bincount(drawn) / len(drawn)
    np.testing.assert_allclose(shares, 0.25, atol=0.01)


# losses


def softmax_loss(own: float, *others: float) -> float:
    return -log(exp(own) / (exp(own) + sum(exp(other) for other in others)))


def test_contrast_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, -0.6]], dtype=torch.float64)
    # products 1 0 0.8 and 0.6 0.8 0, over a temperature of 0.5
    expected = (softmax_loss(2, 0, 1.6) + softmax_loss(1.6, 1.2, 0)) / 2
    found = contrast(queries, images, torch.tensor(0.5))
    assert found.item() == pytest.approx(expected, abs=LAW)


def test_a_hidden_image_is_no_negative() -> None:
    queries = torch.eye(2, dtype=torch.float64)
    images = torch.tensor([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0]], dtype=torch.float64)
    hidden = torch.tensor([[False, False, True], [True, False, False]])
    # products 1 0.5 (1) and (0) 1 1
    expected = (softmax_loss(2, 1) + softmax_loss(2, 2)) / 2
    found = contrast(queries, images, torch.tensor(0.5), hidden)
    assert found.item() == pytest.approx(expected, abs=LAW)


@pytest.mark.parametrize(("asked", "used"), [(0.0001, 0.001), (0.07, 0.07), (3.0, 0.5)])
def test_the_temperature_stays_in_the_published_range(asked: float, used: float) -> None:
    queries, images = torch.ones(1, 1), torch.tensor([[0.5], [0.501]])
    found = contrast(queries.double(), images.double(), torch.tensor(asked, dtype=torch.float64))
    products = images.double().flatten() / used
    assert found.item() == pytest.approx(softmax_loss(*products.tolist()), abs=LAW)


def test_choice_and_accuracy_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, 0.5]], dtype=torch.float64)
    expected = (softmax_loss(2, 1, 0) + softmax_loss(0.5, 3, 0.5)) / 2
    assert choice(scores).item() == pytest.approx(expected, abs=LAW)
    assert accuracy(scores).item() == 0.5


# triplets and negatives

IMAGES, EXAMPLES = 12, 9


def triplets() -> Triplets:
    """Two categories of six images; every example's images are of its category."""
    rng = np.random.default_rng(4)
    category = rng.integers(0, 2, EXAMPLES)
    pairs = np.stack([rng.permutation(6)[:2] for _ in range(EXAMPLES)]) + 6 * category[:, None]
    tokens = rng.standard_normal((IMAGES, VISION.tokens, VISION.width)).astype(np.float32)
    return Triplets(
        image_tokens=torch.from_numpy(tokens),
        reference=torch.from_numpy(pairs[:, 0]),
        target=torch.from_numpy(pairs[:, 1]),
        category=torch.from_numpy(category),
        galleries=[torch.arange(6), torch.arange(6, 12).flip(0)],
        token_ids=[
            [[161, *rng.integers(5, 160, 1 + (row + way) % 4).tolist(), 3] for way in range(2)]
            for row in range(EXAMPLES)
        ],
    )


@given(st.integers(0, 20), st.integers(1, 9))
@settings(deadline=None)
def test_hard_negatives_are_the_best_of_the_own_gallery_without_the_target(
    seed: int, k: int
) -> None:
    data, rng = triplets(), np.random.default_rng(seed)
    queries, images = rng.standard_normal((EXAMPLES, 5)), rng.standard_normal((IMAGES, 5))
    found = top_candidates(torch.from_numpy(queries), torch.from_numpy(images), data, k)
    for row in range(EXAMPLES):
        gallery = data.galleries[int(data.category[row])].tolist()
        allowed = [image for image in gallery if image != data.target[row]]
        allowed.sort(key=lambda image: -sum(queries[row] * images[image]))
        assert found[row].tolist() == allowed[:k]  # all five where k is larger


Fused = TypeVar("Fused", bound=Stage1Training | Stage2Training)


def in_double(training: Fused) -> Fused:
    """Models and image tokens in float64: what is a law there is not blurred by rounding."""
    for model in (training.model, getattr(training, "stage1", training.model)):
        model.double()
    tokens = training.triplets.image_tokens[torch.arange(IMAGES)].double()
    training.triplets = replace(training.triplets, image_tokens=tokens)
    return training


FIRST_WAY = np.zeros(EXAMPLES, dtype=np.int64)


def stage2_recipe(**changes: object) -> Stage2Recipe:
    values = {"epochs": 1, "batch": 4, "learning_rate": 1e-3, "in_batch": False, "hard_from": 3}
    return Stage2Recipe.model_validate(values | changes)


def test_stage_2_chooses_among_target_reference_hard_and_random_images() -> None:
    data = triplets()
    asked = stage2_recipe(reference=True, hard=2, random=4)
    training = Stage2Training(tiny_stage2(), tiny_stage1(), data, asked, CPU)
    assert training.hard is not None
    rows = np.arange(EXAMPLES)
    for seed in range(20):
        drawn = training._candidates(rows, np.random.default_rng(seed))
        assert drawn.shape == (EXAMPLES, asked.candidates())
        for row, candidates in enumerate(drawn.tolist()):
            target, reference, *others = candidates
            assert (target, reference) == (data.target[row], data.reference[row])
            assert set(others) <= set(data.galleries[int(data.category[row])].tolist())
            assert set(others[:2]) <= set(training.hard[row].tolist()) - {target}
            assert len(set(others[:2])) == 2


def test_the_published_candidates_are_the_batchs_targets() -> None:
    """B x B scores: every query with every target, its own first."""
    asked = stage2_recipe(in_batch=True)
    data = triplets()
    training = Stage2Training(tiny_stage2(), tiny_stage1(), data, asked, CPU)
    batch = training.draw(np.random.default_rng(0), 0)
    own = batch.candidates[:, 0].tolist()
    assert batch.candidates.shape == (4, 4) == (4, asked.candidates())
    assert all(sorted(row) == sorted(own) for row in batch.candidates.tolist())
    again = batch.candidates == batch.candidates[:, :1]
    assert batch.hidden.tolist() == (again & (torch.arange(4) > 0)).tolist()


def test_a_copy_of_the_target_does_not_count_as_wrong() -> None:
    data = triplets()
    training = Stage2Training(tiny_stage2(), tiny_stage1(), data, stage2_recipe(), CPU)
    texts = data.texts(np.arange(2), FIRST_WAY)
    candidates = torch.tensor([[3, 3, 5], [4, 2, 1]])
    hidden = torch.tensor([[False, True, False], [False, False, False]])
    batch = Stage2Batch(texts, data.reference[:2], candidates, hidden)
    scores = torch.tensor([[1.0, 9.0, 0.0], [2.0, 1.0, 0.5]], dtype=torch.float64)
    expected = (softmax_loss(1, 0) + softmax_loss(2, 1, 0.5)) / 2
    assert training.losses(batch, (scores,))["loss"].item() == pytest.approx(expected, abs=LAW)


@pytest.mark.parametrize("references", [True, False])
def test_in_batch_contrast_hides_other_copies_of_a_querys_target(references: bool) -> None:
    """With one target for all, no target is a negative: only the references are, if at all."""
    all_of = torch.full((EXAMPLES,), 1)
    same = replace(triplets(), target=3 * all_of, reference=8 * all_of)
    asked = Stage1Recipe(
        epochs=1, batch=EXAMPLES, learning_rate=1e-3, reference_negatives=references
    )
    training = in_double(Stage1Training(tiny_stage1(dropout=0.0), same, asked, CPU))
    with torch.no_grad():
        batch = training.draw(np.random.default_rng(0), 0)
        loss = training.losses(batch, training.represent(batch))["loss"].item()
        texts, model, tokens = batch.texts, training.model, training.triplets.image_tokens
        z_t = model.fuse(texts.ids, texts.lengths, tokens[batch.references])
        target, reference = model.embed_images(tokens[torch.tensor([3, 8])])
        logits = model.embed_queries(z_t) @ torch.stack([target, reference]).T
        logits /= model.temperature
    count = EXAMPLES if references else 0
    by_hand = [softmax_loss(own, *[other] * count) for own, other in logits.tolist()]
    assert loss == pytest.approx(sum(by_hand) / EXAMPLES, abs=LAW)


def scores_of(training: Stage2Training) -> tuple[Stage2Batch, Tensor]:
    """Of the first batch, in eval mode: without dropout."""
    batch = training.draw(np.random.default_rng(0), 0)
    training.model.eval()
    with torch.no_grad():
        (scores,) = training.represent(batch)
    return batch, scores


def test_a_prior_is_no_part_of_the_loss() -> None:
    weighted = tiny_stage2()
    weighted.config = weighted.config.model_copy(update={"prior": 3.0})
    data, stage1, asked = triplets(), tiny_stage1(), stage2_recipe(hard=2, random=3)
    _, scores = scores_of(Stage2Training(weighted, stage1, data, asked, CPU))
    _, without = scores_of(Stage2Training(tiny_stage2(), stage1, data, asked, CPU))
    assert torch.equal(scores, without)


# tiny runs


def pretraining(epochs: float) -> Pretraining:
    rng = np.random.default_rng(6)
    pixels = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    texts = [[[161, *rng.integers(5, 160, 3).tolist(), 3] for _ in range(2)] for _ in range(8)]
    data = DescribedImages(torch.from_numpy(pixels), texts)
    asked = PretrainRecipe(epochs=epochs, batch=4, learning_rate=5e-3, warmup=3, matched=3, group=2)
    return Pretraining(tiny_stage1(layers=2).config, data, asked, CPU)


def stage1_training(epochs: float, *, dropout: float = 0.1) -> Stage1Training:
    asked = Stage1Recipe(
        epochs=epochs, batch=4, learning_rate=3e-3, warmup=3, reference_negatives=True
    )
    return Stage1Training(tiny_stage1(layers=2, dropout=dropout), triplets(), asked, CPU)


def stage2_training(epochs: float, *, dropout: float = 0.1) -> Stage2Training:
    asked = Stage2Recipe(
        epochs=epochs, batch=4, learning_rate=3e-3, warmup=3, hard=2, hard_from=3, random=1
    )
    model = tiny_stage2(layers=2, dropout=dropout)
    return Stage2Training(model, tiny_stage1(layers=2), triplets(), asked, CPU)


def run(
    objective: Pretraining | Stage1Training | Stage2Training,
    *,
    micro_batch: int | None = None,
) -> list[Progress]:
    """All steps; two an epoch."""
    compute = Compute.on("cpu", micro_batch=micro_batch)
    return list(fit(objective, objective.recipe, optimiser(objective, objective.recipe), compute))


Make = Callable[[int], Pretraining | Stage1Training | Stage2Training]
OBJECTIVES = pytest.mark.parametrize("make", [pretraining, stage1_training, stage2_training])


def weights(objective: Objective) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in objective.trained.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])] == []


@OBJECTIVES
def test_every_objective_learns(make: Make) -> None:
    told = run(make(30))
    assert [(progress.step, progress.steps) for progress in told] == [(n, 60) for n in range(1, 61)]
    losses = [progress.losses["loss"] for progress in told]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


@OBJECTIVES
@pytest.mark.parametrize("stop", [1, 4])
def test_a_continued_run_ends_with_the_very_weights_of_an_uninterrupted_one(
    make: Make, stop: int
) -> None:
    whole = make(3)
    expected_losses = run(whole)

    before = make(3)
    adam = optimiser(before, before.recipe)
    steps = fit(before, before.recipe, adam, Compute.on("cpu"))
    losses = list(islice(steps, stop))
    model_state, adam_state = weights(before), copy.deepcopy(adam.state_dict())
    next(steps)  # what the killed run did after it last saved is lost

    torch.manual_seed(99)
    after = make(3)
    for parameter in after.trained.parameters():
        parameter.data.mul_(1.5)
    adam = optimiser(after, after.recipe)
    after.trained.load_state_dict(model_state)
    adam.load_state_dict(adam_state)
    losses += fit(after, after.recipe, adam, Compute.on("cpu"), first_step=stop)

    assert_same(weights(after), weights(whole))
    assert losses == expected_losses


@pytest.mark.parametrize("make", [stage1_training, stage2_training])
def test_the_visual_encoder_is_frozen_in_both_stages(make: Make) -> None:
    objective = make(3)
    before = weights(objective)
    run(objective)
    after = weights(objective)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if "vision." in name]


def test_stage_1_is_frozen_and_exact_while_stage_2_trains() -> None:
    objective = stage2_training(3)
    before = {name: t.clone() for name, t in objective.stage1.state_dict().items()}
    run(objective)
    assert_same(dict(objective.stage1.state_dict()), before)
    assert not objective.stage1.training  # no dropout in z_t
    assert objective.model.training


def test_the_base_learns_from_images_without_words() -> None:
    """No word to mask is no loss of words, not a division by zero."""
    objective = pretraining(1)
    objective.data = DescribedImages(objective.data.pixels, [[[161, 3]]] * 8)
    batch = objective.draw(np.random.default_rng(0), 0)
    losses = objective.losses(batch, objective.represent(batch))
    assert losses["words"] == 0
    assert torch.isfinite(losses["loss"])


@pytest.mark.parametrize("mean", [CLIP_MEAN, (0.5, 0.4, 0.3)])
def test_the_base_sees_pictures_in_training_as_it_will_in_a_run(
    mean: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = Preprocess(VISION.image_size, mean=mean)
    monkeypatch.setattr(VisionConfig, "pictures", property(lambda _: pictures))
    objective = pretraining(1).eval()  # without dropout
    batch = objective.draw(np.random.default_rng(0), 0)
    with torch.no_grad():
        contrasted, *_ = objective.represent(batch)
        images = objective.model.embed_images(
            objective.model.vision(normalise(batch.pixels, mean, pictures.std))
        )
        texts = objective.model.embed_queries(
            objective.model.text(batch.tokens.ids, batch.tokens.lengths, None)
        )
    temperature = objective.model.temperature
    both = contrast(texts, images, temperature) + contrast(images, texts, temperature)
    assert contrasted.item() == both.item() / 2


def test_where_there_is_a_catalogue_its_words_are_hidden() -> None:
    objective = pretraining(1)
    entries = [[161, 5 + image, 3] for image in range(8)]
    objective.data = replace(objective.data, catalogue=entries)
    batch = objective.draw(np.random.default_rng(0), 0)
    assert batch.hiding.ids.shape == (4, 3)
    assert batch.tokens.ids.shape == (4, 5)  # contrast and matching read the descriptions
    told = {
        row.tolist()[1] - 5: pixels
        for row, pixels in zip(batch.hiding.ids, batch.pixels, strict=True)
    }
    for image, pixels in told.items():
        assert torch.equal(pixels, objective.data.pixels[image])
    objective.data = replace(objective.data, catalogue=[[161, 3]] * 8)
    wordless = objective.draw(np.random.default_rng(0), 0)
    assert objective.losses(batch, objective.represent(batch))["words"] > 0
    assert objective.losses(wordless, objective.represent(wordless))["words"] == 0


# one large batch, in parts

FUSED = pytest.mark.parametrize("make", [stage1_training, stage2_training])


@FUSED
@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_large_batch(
    make: Callable[..., Stage1Training | Stage2Training], micro_batch: int
) -> None:
    """In-batch contrast too, where small batches see fewer negatives. Without dropout, whose
    draws depend on the parts."""
    training = in_double(make(1, dropout=0.0))
    for step in range(3):
        batch = training.draw(np.random.default_rng(step), step)
        expected, told = gradients(training, batch, None)
        found, told_of_parts = gradients(training, batch, micro_batch)
        assert told_of_parts == pytest.approx(told, abs=LAW)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=LAW)
        assert max(gradient.abs().max() for gradient in expected.values()) > 0.1


def gradients(
    training: Stage1Training | Stage2Training, batch: Any, micro_batch: int | None
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Of each parameter; and the losses."""
    training.trained.zero_grad()
    named = {n: p for n, p in training.trained.named_parameters() if p.requires_grad}
    compute = Compute.on("cpu", micro_batch=micro_batch)
    told = accumulate(training, batch, list(named.values()), compute, seed=1)
    return {n: p.grad.clone() for n, p in named.items() if p.grad is not None}, told


@FUSED
def test_with_dropout_both_passes_over_a_part_agree(
    make: Callable[..., Stage1Training | Stage2Training],
) -> None:
    """Were the second pass to drop other units, its gradient would belong to another loss."""
    first, second = make(1), make(1)
    assert run(first, micro_batch=3) == run(second, micro_batch=3)
    assert_same(weights(first), weights(second))


@FUSED
def test_checkpointing_changes_no_gradient(
    make: Callable[..., Stage1Training | Stage2Training],
) -> None:
    plain, again = make(2, dropout=0.0), make(2, dropout=0.0)
    for module in (again.model, getattr(again.model, "text", again.model)):
        module.checkpointing = True
    assert run(again) == run(plain)
    assert_same(weights(again), weights(plain))


def test_pre_training_is_not_split() -> None:
    with pytest.raises(PreflightError, match="cannot be split"):
        run(pretraining(1), micro_batch=2)


class Large(Stage1Training):
    """A memory that holds two rows."""

    asked: list[int]

    def represent(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        self.asked.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().represent(batch)


def test_out_of_memory_halves_the_rows_at_a_time_once(caplog: pytest.LogCaptureFixture) -> None:
    expected = run(stage1_training(2, dropout=0.0), micro_batch=2)
    small = stage1_training(2, dropout=0.0)
    large = Large(small.model, small.triplets, small.recipe, CPU)
    large.asked = []
    with caplog.at_level("WARNING"):
        found = run(large)
    assert found == expected
    assert len(caplog.messages) == 1
    assert "2 rows at a time; the batch stays 4" in caplog.text
    assert large.asked[0] == 4
    assert set(large.asked[1:]) == {2}  # remembered


def test_out_of_memory_with_one_row_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_batch: Any) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory")

    training = stage1_training(1)
    monkeypatch.setattr(training, "represent", refuse)
    with pytest.raises(PreflightError, match="too small for this training") as caught:
        run(training)
    assert "--micro-batch" in caught.value.remedy


@pytest.mark.parametrize("examples", [0, 1])
def test_a_batch_without_negatives_is_refused(examples: int) -> None:
    training = stage1_training(1)
    training.triplets = replace(training.triplets, token_ids=training.triplets.token_ids[:examples])
    with pytest.raises(PreflightError, match=f"nothing to learn from {examples} training"):
        run(training)


class Poisoned(nn.Module):
    """A square root of a number that is 2, 1, 0, -1: its gradient, then its value, breaks."""

    splits: Splits = "never"

    def __init__(self, first: float) -> None:
        super().__init__()
        self.first = first
        self.weight = nn.Parameter(torch.ones(3))

    @property
    def trained(self) -> nn.Module:
        return self

    def __len__(self) -> int:
        return 4

    def draw(self, _rng: np.random.Generator, step: int) -> list[int]:
        return [step]

    def represent(self, batch: list[int]) -> tuple[Tensor]:
        return (((self.first - batch[0]) * self.weight[0]).sqrt() + (self.weight * 0).sum(),)

    def losses(self, _batch: list[int], representations: tuple[Tensor]) -> dict[str, Tensor]:
        return {"loss": representations[0]}


def steps_of(objective: Poisoned) -> Iterator[Progress]:
    flat = recipe(warmup=0)
    return fit(objective, flat, optimiser(objective, flat), Compute.on("cpu"))


@pytest.mark.parametrize(("first", "step", "what"), [(0.0, 1, "gradient"), (-1.0, 1, "loss")])
def test_a_diverged_step_leaves_the_weights_alone(first: float, step: int, what: str) -> None:
    objective = Poisoned(first)
    with pytest.raises(Diverged, match=f"the {what} of step {step} is (nan|inf)"):
        next(steps_of(objective))
    assert_same(weights(objective), {"weight": torch.ones(3)})


def test_steps_before_a_divergence_are_kept() -> None:
    objective = Poisoned(1.0)
    steps = steps_of(objective)
    told = next(steps)
    assert isinstance(told, Progress)
    assert (told.step, told.epoch, told.learning_rate) == (1, 1, 0.5)
    assert told.losses == {"loss": 1.0}
    kept = weights(objective)
    assert torch.isfinite(kept["weight"]).all()
    with pytest.raises(Diverged, match="step 2"):
        next(steps)
    assert_same(weights(objective), kept)


@pytest.mark.parametrize("make", [stage1_training, stage2_training])
def test_only_matrices_decay_and_frozen_weights_are_left_out(make: Make) -> None:
    objective = make(1)
    decayed, plain = optimiser(objective, objective.recipe).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim <= 1 for p in plain["params"])
    listed = {id(p) for p in [*decayed["params"], *plain["params"]]}
    named = objective.trained.named_parameters()
    assert listed == {id(p) for name, p in named if "vision." not in name}


# from the base to stage 2


@pytest.mark.parametrize("merge_from", [0, 1, 3])
@pytest.mark.parametrize("layers", [1, 3])
def test_stage_2_starts_as_the_matching_of_its_base(merge_from: int, layers: int) -> None:
    """Both branches see the text: then each layer is the base's, the mean of two equals is one of
    them, and the score is how much more "matches" weighs than "does not"."""
    base = tiny_stage1(layers=layers)
    with torch.no_grad():  # so few digits that halves of differences are exact in fp32
        for parameter in base.matching_head.parameters():
            parameter.copy_((parameter * 2**12).round() / 2**12)
    torch.manual_seed(0)
    model = stage2_from_base(base, stage2_config(merge_from, layers)).eval().double()
    base.double()
    with torch.no_grad():
        model.score_head.output.weight[0, 2:] = 0  # the faint rest
    data = triplets()
    texts = data.texts(np.arange(EXAMPLES), FIRST_WAY)
    images = data.image_tokens[torch.arange(EXAMPLES)].double()
    with torch.inference_mode():
        z = base.fuse(texts.ids, texts.lengths, images)
        differs, matches = base.matching_head(z[:, 0]).T
        text = base.text.embeddings(texts.ids)
        found = model(text, texts.ids, texts.lengths, images)
    assert found.std() > 0.05
    np.testing.assert_allclose(found, matches - differs, rtol=0, atol=LAW)


def test_stage_2_starts_with_its_bases_weights_in_both_branches() -> None:
    base, model = tiny_stage1(), stage2_from_base(tiny_stage1(), stage2_config())
    ours, bases = model.state_dict(), base.state_dict()
    assert_same(
        {name: t for name, t in ours.items() if name.startswith("vision.")},
        {name: t for name, t in bases.items() if name.startswith("vision.")},
    )
    for name, tensor in bases.items():
        if not name.startswith("text.layers."):
            continue
        _, _, index, part, rest = name.split(".", 4)
        branches = [f"{part}.{rest}"]
        if part != "feed_forward":
            branches = [f"{part}.{branch}.{rest}" for branch in range(2)]
        assert all(torch.equal(ours[f"layers.{index}.{b}"], tensor) for b in branches)
    assert not {name for name in ours if torch.isnan(ours[name]).any()}
