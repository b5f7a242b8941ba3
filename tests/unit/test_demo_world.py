"""The demo dataset keeps what it promises: one answer a query, known words, the same each time."""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from cir_core.datasets.about import DEMO as DEMO_ABOUT
from cir_core.datasets.captions import join_captions
from cir_core.datasets.demo import world
from cir_core.datasets.demo.drawing import SIDE, draw
from cir_core.datasets.demo.garments import CATEGORIES, Garment, differences
from cir_core.datasets.demo.wording import modification_captions, vocabulary
from cir_core.datasets.demo.world import MOST_CHANGES, DemoSplit, build_split
from cir_core.datasets.fashion_iq import FashionIQ
from cir_core.layers.wordpiece import Tokenizer, word_list
from cir_core.protocols import DEMO
from cir_core.types import Benchmark, Split
from tasks.stages.render import render_demo

UNKNOWN = 1
"""The id of [UNK]."""
DRAWS_TRAIN = pytest.mark.slow  # its 36,000 garments take 6 s


@pytest.fixture(scope="module")
def val() -> DemoSplit:
    return build_split("val")


@pytest.fixture(scope="module")
def train() -> DemoSplit:
    return build_split("train")


def parsed(split: DemoSplit, name: Split) -> Benchmark:
    return FashionIQ().parse(name, CATEGORIES, split.annotations.__getitem__, DEMO[0])


def garments(split: DemoSplit) -> dict[str, Garment]:
    return {str(image.image_id): image.garment for image in split.images}


def all_texts(split: DemoSplit) -> list[str]:
    texts: list[str] = []
    for file, content in split.annotations.items():
        if file.startswith("captions/"):
            texts += [caption for entry in content for caption in entry["captions"]]
        elif file.startswith("descriptions/"):
            texts += [line["text"] for line in content]
    return texts


def test_val_is_the_same_every_time(val: DemoSplit) -> None:
    assert build_split("val") == val


@DRAWS_TRAIN
def test_what_the_doctor_expects_of_the_demo_is_what_is_drawn(
    val: DemoSplit, train: DemoSplit
) -> None:
    drawn = {"train": train, "val": val, "test": build_split("test")}
    assert DEMO_ABOUT.counts.keys() == drawn.keys()
    for name, split in drawn.items():
        for category in CATEGORIES:
            queries = split.annotations[f"captions/cap.{category}.{name}.json"]
            gallery = split.annotations[f"image_splits/split.{category}.{name}.json"]
            assert DEMO_ABOUT.counts[name].queries[category] == len(queries)
            assert DEMO_ABOUT.counts[name].gallery[category] == len(gallery)
    assert DEMO_ABOUT.distinct_images == sum(len(split.images) for split in drawn.values())


def test_val_is_of_useful_size(val: DemoSplit) -> None:
    benchmark = parsed(val, "val")
    assert len(val.images) >= 1_500
    assert len(benchmark.queries) >= 1_200
    assert tuple(benchmark.galleries) == CATEGORIES
    assert len(CATEGORIES) == 3
    assert len({image.image_id for image in val.images}) == len(val.images)
    assert set(benchmark.files) == {image.image_id for image in val.images}


@DRAWS_TRAIN
def test_train_is_larger_and_shows_nothing_that_val_shows(val: DemoSplit, train: DemoSplit) -> None:
    assert len(parsed(train, "train").queries) >= 6_000
    assert not set(garments(train).values()) & set(garments(val).values())
    assert not set(garments(train)) & set(garments(val))
    seeds = [image.jitter_seed for image in (*train.images, *val.images)]
    assert len(set(seeds)) == len(seeds)


@DRAWS_TRAIN
def test_the_test_split_has_answers_and_shows_nothing_that_the_others_show(
    val: DemoSplit, train: DemoSplit
) -> None:
    test = build_split("test")
    benchmark = FashionIQ(labelled_test=True).parse(
        "test", CATEGORIES, test.annotations.__getitem__, DEMO[0]
    )
    assert all(query.targets for query in benchmark.queries)
    assert (
        not FashionIQ()
        .parse("test", CATEGORIES, test.annotations.__getitem__, DEMO[0])
        .queries[0]
        .targets
    )  # Fashion-IQ keeps them to itself
    assert len(test.images) == len(val.images)
    shown = set(garments(test).values())
    assert shown.isdisjoint(garments(val).values())
    assert shown.isdisjoint(garments(train).values())


@pytest.mark.parametrize(
    ("name", "step"), [("val", 1), pytest.param("train", 7, marks=DRAWS_TRAIN)]
)  # all of train take 3 s
def test_every_query_has_exactly_one_answer(
    name: Split, step: int, request: pytest.FixtureRequest
) -> None:
    """The reference's attributes with the changes applied are one gallery garment's: the target."""
    split: DemoSplit = request.getfixturevalue(name)
    shown, benchmark = garments(split), parsed(split, name)
    for category, gallery in benchmark.galleries.items():
        assert {shown[image].category for image in gallery} == {category}
        assert len({shown[image] for image in gallery}) == len(gallery)
    by_attributes = {garment: image for image, garment in shown.items()}
    for query in benchmark.queries[::step]:
        before, after = shown[query.reference_id], shown[query.targets[0]]
        changed = differences(before, after)
        assert 1 <= len(changed) <= MOST_CHANGES
        wanted = replace(before, **{attribute: getattr(after, attribute) for attribute in changed})
        assert by_attributes[wanted] == query.targets[0]
        assert query.targets[0] in benchmark.galleries[query.category]
        assert query.reference_id in benchmark.galleries[query.category]


def test_the_catalogue_tells_garments_apart(val: DemoSplit) -> None:
    lines = val.annotations["descriptions/catalogue.val.jsonl"]
    entries = {line["image"]: line["text"] for line in lines}
    assert len(entries) == len(lines)
    assert entries.keys() == garments(val).keys()
    assert len(set(entries.values())) == len(set(garments(val).values()))
    assert {len(entry.split()) for entry in entries.values()} == {
        13
    }  # every attribute in its place


def test_no_query_is_asked_twice(val: DemoSplit) -> None:
    queries = parsed(val, "val").queries
    assert len({(query.reference_id, query.targets) for query in queries}) == len(queries)


def test_a_gallery_holds_near_duplicates_of_the_target(val: DemoSplit) -> None:
    """So that the second stage has something to sort out: a wrong garment one attribute away."""
    shown, benchmark = garments(val), parsed(val, "val")
    gallery = [shown[image] for image in benchmark.galleries["dress"]]
    targets = [shown[query.targets[0]] for query in benchmark.queries if query.category == "dress"]
    near = [any(len(differences(target, other)) == 1 for other in gallery) for target in targets]
    assert np.mean(near) > 0.5


@pytest.mark.parametrize("name", [pytest.param("train", marks=DRAWS_TRAIN), "val"])
def test_every_word_is_in_the_shipped_vocabulary(
    name: Split, request: pytest.FixtureRequest
) -> None:
    split: DemoSplit = request.getfixturevalue(name)
    words = {word for text in all_texts(split) for word in re.findall(r"\w+|[^\w\s]", text.lower())}
    assert len(words) > 50
    assert words <= set(word_list("demo"))


def test_the_tokenizer_knows_every_text_and_splits_no_word(val: DemoSplit) -> None:
    texts = [query.text for query in parsed(val, "val").queries] + all_texts(val)
    table = word_list("demo")
    for text, ids in zip(texts, Tokenizer("demo")(texts), strict=True):
        assert UNKNOWN not in ids
        assert [table[token] for token in ids[1:-1]] == re.findall(r"\w+|[^\w\s]", text.lower())


def test_the_shipped_vocabulary_is_that_of_the_templates() -> None:
    assert tuple(vocabulary()) == word_list("demo")
    assert vocabulary()[UNKNOWN] == "[UNK]"
    assert len(set(vocabulary())) == len(vocabulary())


def test_the_captions_of_nothing_are_refused() -> None:
    garment = build_one()
    with pytest.raises(ValueError, match="same"):
        modification_captions(garment, garment, np.random.default_rng(0))


def test_each_changed_attribute_is_told() -> None:
    before = build_one()
    after = replace(before, colour="red", sleeve="long", print="star")
    for seed in range(40):
        first, second = modification_captions(before, after, np.random.default_rng(seed))
        text = join_captions(first, second, "published").lower()
        assert "red" in text
        assert "star" in text
        assert "long sleeves" in text or "full sleeves" in text


def build_one() -> Garment:
    return Garment("dress", "blue", "striped", "white", "short", "v", "regular", "none")


def drawn(garment: Garment, *seed: int) -> np.ndarray:
    return np.array(draw(garment, np.random.default_rng(seed)))


def test_a_drawing_is_the_same_for_a_seed_and_differs_between_seeds() -> None:
    garment = build_one()
    assert drawn(garment, 1).shape == (SIDE, SIDE, 3)
    assert (drawn(garment, 1, 2) == drawn(garment, 1, 2)).all()
    assert (drawn(garment, 1, 2) != drawn(garment, 1, 3)).any()


def test_each_attribute_shows() -> None:
    garment = build_one()
    other = Garment("shirt", "red", "dotted", "black", "long", "square", "cropped", "moon")
    for field in fields(Garment):
        changed = replace(garment, **{field.name: getattr(other, field.name)})
        assert (drawn(changed, 5) != drawn(garment, 5)).any(), field.name


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.FAMILIES, "val", 1)


@pytest.mark.usefixtures("small_world")
def test_rendering_writes_every_picture_and_annotation(tmp_path: Path) -> None:
    render_demo(tmp_path, "val")
    split = build_split("val")
    assert len(list((tmp_path / "images").glob("*.png"))) == len(split.images) == 36
    assert all((tmp_path / relative).is_file() for relative in split.annotations)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.usefixtures("small_world")
def test_rendering_again_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_demo(tmp_path, "val")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def fail(*_args: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr("tasks.stages.render.draw", fail)
    render_demo(tmp_path, "val")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.usefixtures("small_world")
def test_an_interrupted_rendering_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def interrupted(*_args: object) -> None:
        nonlocal count
        count += 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.stages.render.draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render_demo(tmp_path, "val")
    assert count == 1
    render_demo(tmp_path, "val")
    assert len(list((tmp_path / "images").glob("*.png"))) == 36


@pytest.mark.usefixtures("small_world")
def test_a_damaged_or_lost_drawing_is_drawn_again(tmp_path: Path) -> None:
    render_demo(tmp_path, "val")
    picture = min((tmp_path / "images").glob("*.png"))
    good = picture.read_bytes()
    for damage in (lambda: picture.write_bytes(good[:-1]), picture.unlink):
        damage()
        render_demo(tmp_path, "val")
        assert picture.read_bytes() == good
