"""Training: schedules and batches by their laws, losses by hand, tiny runs of every objective."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from math import cos, exp, log, pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cir_core.models.tokenizer import pad_tokens
from cir_core.training.loop import (
    Diverged,
    Objective,
    Progress,
    Recipe,
    epoch_rows,
    fit,
    learning_rate,
    optimiser,
)
from cir_core.training.losses import accuracy, choice, contrast
from cir_core.training.presets import PRESETS
from cir_core.training.pretrain import DescribedImages, Pretraining, PretrainRecipe
from cir_core.training.stage1 import Stage1Training
from cir_core.training.stage2 import Stage2Recipe, Stage2Training, stage2_from_base
from cir_core.training.triplets import Triplets, length_sorted_rows, top_candidates
from tests.support.tiny_models import VISION, stage2_config, tiny_stage1, tiny_stage2

# the schedule


def recipe(**changes: float) -> Recipe:
    return Recipe.model_validate({"steps": 100, "batch": 4, "learning_rate": 0.5} | changes)


def test_the_rate_rises_linearly_then_falls_as_a_cosine_to_zero() -> None:
    warm = recipe(warmup=10)
    assert learning_rate(warm, 0) == 0.05
    assert learning_rate(warm, 4) == 0.25
    assert learning_rate(warm, 9) == 0.5
    assert learning_rate(warm, 10) == 0.5
    assert learning_rate(warm, 55) == pytest.approx(0.25)  # half of the way down
    assert learning_rate(warm, 99) == pytest.approx(0.25 * (1 + cos(pi * 89 / 90)))
    assert learning_rate(warm, 100) == pytest.approx(0, abs=1e-12)


def test_without_warm_up_the_first_rate_is_the_highest() -> None:
    assert learning_rate(recipe(warmup=0), 0) == 0.5


@given(st.integers(1, 50), st.integers(0, 60))
def test_the_rate_is_positive_and_never_above_the_recipes(steps: int, warmup: int) -> None:
    rates = [learning_rate(recipe(steps=steps, warmup=warmup), step) for step in range(steps)]
    assert all(0 < rate <= 0.5 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_every_preset_warms_up_before_it_ends() -> None:
    for preset in PRESETS.values():
        for part in (preset.pretrain, preset.stage1, preset.stage2):
            assert part.warmup < part.steps


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


def triplets_of(lengths: list[int]) -> Triplets:
    """Only the texts matter."""
    none = torch.zeros(len(lengths), dtype=torch.long)
    texts = [[1] * length for length in lengths]
    return Triplets(torch.zeros(1, 1, 1), none, none, none, [], texts)


@given(st.lists(st.integers(2, 9), min_size=1, max_size=40), BATCH, SEED, st.integers(1, 4))
def test_an_epoch_sorted_by_length_has_no_example_twice(
    lengths: list[int], batch: int, seed: int, pool: int
) -> None:
    data, per_epoch = triplets_of(lengths), max(1, len(lengths) // batch)
    for epoch in range(2):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        batches = [length_sorted_rows(data, batch, seed, step, pool=pool) for step in steps]
        assert all(len(rows) == min(batch, len(lengths)) for rows in batches)
        seen = np.concatenate(batches).tolist()
        assert len(set(seen)) == len(seen)


@given(st.lists(st.integers(2, 9), min_size=4, max_size=40), st.integers(1, 4), SEED)
def test_within_a_pool_batches_are_intervals_of_length(
    lengths: list[int], batch: int, seed: int
) -> None:
    per_epoch = len(lengths) // batch
    data = triplets_of(lengths)
    ranges = sorted(
        (min(found), max(found))
        for step in range(per_epoch)
        for found in [[lengths[r] for r in length_sorted_rows(data, batch, seed, step, pool=99)]]
    )
    assert all(first[1] <= second[0] for first, second in pairwise(ranges))


def test_batches_are_functions_of_seed_and_step_alone() -> None:
    data = triplets_of([2, 3, 4] * 20)

    def batches(seed: int) -> list[list[int]]:
        plain = [epoch_rows(60, 7, seed, step, group=2).tolist() for step in range(20)]
        by_length = [length_sorted_rows(data, 7, seed, step).tolist() for step in range(20)]
        return plain + by_length

    torch.manual_seed(5)
    first = batches(1)
    assert batches(1) == first
    assert batches(2) != first
    assert epoch_rows(60, 7, 1, 0).tolist() != epoch_rows(60, 7, 1, 8).tolist()  # next epoch


# losses


def softmax_loss(own: float, *others: float) -> float:
    return -log(exp(own) / (exp(own) + sum(exp(other) for other in others)))


def test_contrast_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, -0.6]])
    # products 1 0 0.8 and 0.6 0.8 0, over a temperature of 0.5
    expected = (softmax_loss(2, 0, 1.6) + softmax_loss(1.6, 1.2, 0)) / 2
    found = contrast(queries, images, torch.tensor(0.5))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_a_hidden_image_is_no_negative() -> None:
    queries, images = torch.eye(2), torch.tensor([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0]])
    hidden = torch.tensor([[False, False, True], [True, False, False]])
    # products 1 0.5 (1) and (0) 1 1
    expected = (softmax_loss(2, 1) + softmax_loss(2, 2)) / 2
    found = contrast(queries, images, torch.tensor(0.5), hidden)
    assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("asked", "used"), [(0.0001, 0.001), (0.07, 0.07), (3.0, 0.5)])
def test_the_temperature_stays_in_the_published_range(asked: float, used: float) -> None:
    queries, images = torch.tensor([[1.0]]), torch.tensor([[0.5], [0.501]])
    found = contrast(queries, images, torch.tensor(asked))
    assert found.item() == pytest.approx(softmax_loss(0, 0.001 / used), rel=1e-4)


def test_choice_and_accuracy_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, 0.5]])
    expected = (softmax_loss(2, 1, 0) + softmax_loss(0.5, 3, 0.5)) / 2
    assert choice(scores).item() == pytest.approx(expected, abs=1e-6)
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
            [161, *rng.integers(5, 160, 1 + row % 4).tolist(), 3] for row in range(EXAMPLES)
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


def test_stage_2_chooses_among_target_reference_hard_and_random_images() -> None:
    data = triplets()
    asked = Stage2Recipe(
        steps=1, batch=4, learning_rate=1e-3, hard=2, hard_from=3, random=4, warmup=0
    )
    training = Stage2Training(tiny_stage2(), tiny_stage1(), data, asked)
    rows = np.arange(EXAMPLES)
    for seed in range(20):
        drawn = training._candidates(rows, np.random.default_rng(seed))
        assert drawn.shape == (EXAMPLES, 1 + 1 + 2 + 4)
        for row, candidates in enumerate(drawn.tolist()):
            target, reference, *others = candidates
            assert (target, reference) == (data.target[row], data.reference[row])
            gallery = data.galleries[int(data.category[row])].tolist()
            assert set(others) <= set(gallery) - {target}
            assert set(others[:2]) <= set(training.hard[row].tolist())
            assert len(set(others[:2])) == 2


def test_in_batch_contrast_hides_other_copies_of_a_querys_target() -> None:
    """With one target for all, no target is a negative: only the references are."""
    all_of = torch.full((EXAMPLES,), 1)
    same = replace(triplets(), target=3 * all_of, reference=8 * all_of)
    training = Stage1Training(tiny_stage1(dropout=0.0), same, recipe(batch=EXAMPLES))
    with torch.no_grad():
        loss = training.losses(np.random.default_rng(0), 0)["loss"].item()
        texts, model = pad_tokens(same.token_ids), training.model
        z_t = model.fuse(texts.ids, texts.lengths, same.image_tokens[same.reference])
        target, reference = model.embed_images(same.image_tokens[[3, 8]])
        logits = model.embed_queries(z_t) @ torch.stack([target, reference]).T / 0.07
    by_hand = [softmax_loss(own, *[other] * EXAMPLES) for own, other in logits.tolist()]
    assert loss == pytest.approx(sum(by_hand) / EXAMPLES, abs=1e-4)


# tiny runs


def pretraining(steps: int) -> Pretraining:
    rng = np.random.default_rng(6)
    pixels = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    texts = [[[161, *rng.integers(5, 160, 3).tolist(), 3] for _ in range(2)] for _ in range(8)]
    data = DescribedImages(torch.from_numpy(pixels), texts)
    asked = PretrainRecipe(steps=steps, batch=4, learning_rate=5e-3, warmup=3, group=2)
    return Pretraining(tiny_stage1(layers=2).config, data, asked)


def stage1_training(steps: int) -> Stage1Training:
    asked = Recipe(steps=steps, batch=4, learning_rate=3e-3, warmup=3)
    return Stage1Training(tiny_stage1(layers=2), triplets(), asked)


def stage2_training(steps: int) -> Stage2Training:
    asked = Stage2Recipe(
        steps=steps, batch=4, learning_rate=3e-3, warmup=3, hard=2, hard_from=3, random=1
    )
    return Stage2Training(tiny_stage2(layers=2), tiny_stage1(layers=2), triplets(), asked)


Make = Callable[[int], Pretraining | Stage1Training | Stage2Training]
OBJECTIVES = pytest.mark.parametrize("make", [pretraining, stage1_training, stage2_training])


def weights(objective: Objective) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in objective.trained.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])] == []


@OBJECTIVES
def test_every_objective_learns(make: Make) -> None:
    objective = make(60)
    told = list(fit(objective, objective.recipe, optimiser(objective, objective.recipe)))
    assert [(progress.step, progress.steps) for progress in told] == [(n, 60) for n in range(1, 61)]
    losses = [progress.losses["loss"] for progress in told]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


@OBJECTIVES
@pytest.mark.parametrize("stop", [1, 4])
def test_a_continued_run_ends_with_the_very_weights_of_an_uninterrupted_one(
    make: Make, stop: int
) -> None:
    whole = make(6)
    expected_losses = list(fit(whole, whole.recipe, optimiser(whole, whole.recipe)))

    before = make(6)
    adam = optimiser(before, before.recipe)
    steps = fit(before, before.recipe, adam)
    losses = list(islice(steps, stop))
    model_state, adam_state = weights(before), copy.deepcopy(adam.state_dict())
    next(steps)  # what the killed run did after it last saved is lost

    torch.manual_seed(99)
    after = make(6)
    for parameter in after.trained.parameters():
        parameter.data.mul_(1.5)
    adam = optimiser(after, after.recipe)
    after.trained.load_state_dict(model_state)
    adam.load_state_dict(adam_state)
    losses += fit(after, after.recipe, adam, first_step=stop)

    assert_same(weights(after), weights(whole))
    assert losses == expected_losses


@pytest.mark.parametrize("make", [stage1_training, stage2_training])
def test_the_visual_encoder_is_frozen_in_both_stages(make: Make) -> None:
    objective = make(3)
    before = weights(objective)
    list(fit(objective, objective.recipe, optimiser(objective, objective.recipe)))
    after = weights(objective)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if "vision." in name]


def test_stage_1_is_frozen_and_exact_while_stage_2_trains() -> None:
    objective = stage2_training(3)
    before = {name: t.clone() for name, t in objective.stage1.state_dict().items()}
    list(fit(objective, objective.recipe, optimiser(objective, objective.recipe)))
    assert_same(dict(objective.stage1.state_dict()), before)
    assert not objective.stage1.training  # no dropout in z_t
    assert objective.model.training


def test_the_base_learns_from_images_without_words() -> None:
    """No word to mask is no loss of words, not a division by zero."""
    objective = pretraining(1)
    objective.data = DescribedImages(objective.data.pixels, [[[161, 3]]] * 8)
    losses = objective.losses(np.random.default_rng(0), 0)
    assert losses["words"] == 0
    assert torch.isfinite(losses["loss"])


class Poisoned(nn.Module):
    """A square root of a number that is 2, 1, 0, -1: its gradient, then its value, breaks."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.first = first
        self.weight = nn.Parameter(torch.ones(3))

    @property
    def trained(self) -> nn.Module:
        return self

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        return {"loss": ((self.first - step) * self.weight[0]).sqrt() + (self.weight * 0).sum()}


@pytest.mark.parametrize(("first", "step", "what"), [(0.0, 1, "gradient"), (-1.0, 1, "loss")])
def test_a_diverged_step_leaves_the_weights_alone(first: float, step: int, what: str) -> None:
    objective = Poisoned(first)
    adam = optimiser(objective, recipe(warmup=0))
    with pytest.raises(Diverged, match=f"the {what} of step {step} is (nan|inf)"):
        next(fit(objective, recipe(warmup=0), adam))
    assert_same(weights(objective), {"weight": torch.ones(3)})


def test_steps_before_a_divergence_are_kept() -> None:
    objective = Poisoned(1.0)
    steps = fit(objective, recipe(warmup=0), optimiser(objective, recipe(warmup=0)))
    told = next(steps)
    assert isinstance(told, Progress)
    assert (told.step, told.learning_rate, told.losses) == (1, 0.5, {"loss": 1.0})
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
    torch.manual_seed(0)
    model = stage2_from_base(base, stage2_config(merge_from, layers)).eval()
    with torch.no_grad():
        model.score_head.output.weight[0, 2:] = 0  # the faint rest
    data = triplets()
    texts, images = pad_tokens(data.token_ids), data.image_tokens[:EXAMPLES]
    with torch.inference_mode():
        z = base.fuse(texts.ids, texts.lengths, images)
        differs, matches = base.matching_head(z[:, 0]).T
        text = base.text.embeddings(texts.ids)
        found = model(text, texts.ids, texts.lengths, images)
    assert found.std() > 0.05
    np.testing.assert_allclose(found, matches - differs, rtol=0, atol=2e-5)


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
