"""Recipes by name or by file: all values shown, all mistakes told at once."""

from pathlib import Path

import pytest

from cir_core.errors import UsageError
from cir_core.layers.wordpiece import Tokenizer
from cir_core.training.presets import PRESETS
from flows.recipes import (
    changed_preset,
    find_recipe,
    recipe_changes,
    recipe_rows,
    recipe_text,
)


def write(folder: Path, text: str) -> str:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_shows_every_value(name: str) -> None:
    rows = {key: (value, origin) for key, value, origin in recipe_rows(find_recipe(name))}
    assert rows["stage2.learning_rate"] == (PRESETS[name].stage2.learning_rate, f"preset {name}")
    for part in ("stage1", "stage2"):
        shown = {key.removeprefix(f"{part}.") for key in rows if key.startswith(f"{part}.")}
        assert shown == set(type(getattr(PRESETS[name], part)).model_fields)


def test_the_published_recipes() -> None:
    for name, epochs in (("fiq", (20, 50)), ("cirr", (10, 80))):
        preset = PRESETS[name]
        assert (preset.stage1.epochs, preset.stage2.epochs) == epochs
        assert (preset.stage1.batch, preset.stage2.batch) == (512, 16)
        assert preset.stage1.learning_rate == preset.stage2.learning_rate == 2e-5
        assert preset.stage2.candidates() == 16  # B x B
        assert preset.merge_from == 6


def test_small_is_the_demos_recipe_with_any_words_and_a_prior() -> None:
    demo, small = (dict(flat) for flat in (values("demo"), values("small")))
    assert {key: small[key] for key in small if small[key] != demo[key]} == {
        "base.text.vocabulary": "bert-base-uncased",
        "base.text.vocabulary_size": 30524,
        "base.text.positions": 128,
        "pretrain.epochs": 40,
        "stage2.prior": 1.0,
    }
    assert Tokenizer("bert-base-uncased").vocabulary_size == 30524
    assert PRESETS["fiq"].stage2.prior == PRESETS["cirr"].stage2.prior == demo["stage2.prior"] == 0


def values(name: str) -> list[tuple[str, object]]:
    return [(key, value) for key, value, _ in recipe_rows(find_recipe(name))]


def test_a_file_changes_some_values(tmp_path: Path) -> None:
    recipe = find_recipe(
        write(tmp_path, 'preset = "fiq"\n[stage2]\nhard = 8\nin_batch = false\nepochs = 3\n')
    )
    assert recipe.preset.stage2.candidates() == 9
    assert recipe.preset.stage1 == PRESETS["fiq"].stage1
    origins = {name: origin for name, _, origin in recipe_rows(recipe)}
    assert origins["stage2.hard"] == "the file"
    assert origins["stage2.batch"] == "preset fiq"


def test_a_base_that_is_trained_from_nothing_sees_by_a_vit(tmp_path: Path) -> None:
    vision = '[base.vision]\nfit = "squash"\n'
    base = find_recipe(write(tmp_path, 'preset = "demo"\n' + vision)).preset.base
    assert base is not None
    assert base.pictures.fit == "squash"
    tower = (
        'kind = "siglip"\nactivation = "gelu"\nepsilon = 1e-6\nresample = "bicubic"\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n"
    )
    with pytest.raises(UsageError, match=r"base: .* a siglip tower is kept as it was published"):
        find_recipe(write(tmp_path, 'preset = "demo"\n' + vision + tower))


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = (
        'preset = "demo"\nmerge = 1\n[stage1]\nlearningrate = 1\nbatch = 1\n'
        '[stage2]\nselected_by = "recall"\ncaptions = ["both"]\n'
    )
    with pytest.raises(UsageError) as caught:
        find_recipe(write(tmp_path, text))
    for name in (
        "merge", "stage1.learningrate", "stage1.batch", "stage2.selected_by", "stage2.captions.0",
    ):  # fmt: skip
        assert name in caught.value.cause
    assert "config show --config demo" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "told"),
    [("[stage1]\n", "which preset"), ('preset = "x"\n', "which preset"), ("=", "cannot be read")],
)
def test_a_file_must_name_its_preset(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        find_recipe(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "told"), [("paper", "no recipe is called 'paper'"), ("gone.toml", "cannot be read")]
)
def test_an_unknown_recipe_is_told(name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        find_recipe(name)


def test_changes_are_read_as_they_are_written(tmp_path: Path) -> None:
    changes = {
        "weights": "fp32",
        "merge_from": 3,
        "variant": {"encoder": "single", "text": True},
        "stage2": {"epochs": 0.5, "betas": [0.9, 0.98], "captions": ["published"], "seed": 7},
    }
    file = tmp_path / "written.toml"
    file.write_text(recipe_text("demo", changes))
    assert recipe_changes(str(file)) == ("demo", changes)
    assert find_recipe(str(file)).preset == changed_preset("demo", changes, item="here")
