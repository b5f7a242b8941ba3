"""What is kept out of training stays out, whole groups of it, and is enough to select on."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_core.datasets.registry import find_dataset
from cir_core.datasets.selection import (
    SHARE,
    keep_out,
    selection_queries,
    source_split,
    training_queries,
)
from cir_core.errors import PreflightError
from cir_core.types import Benchmark, ImageId, Query, QueryId

IMAGES = st.integers(0, 60).map(lambda number: ImageId(f"image-{number}"))
ASKED = st.tuples(IMAGES, IMAGES, st.sampled_from(["", "", "boots", "clogs"]), st.booleans())


@st.composite
def benchmarks(draw: st.DrawFn) -> Benchmark:
    queries = [
        Query(
            QueryId(f"q{row}"), draw(st.sampled_from("ab")), reference, "text",
            (target,) if labelled else (), group=group,
        )
        for row, (reference, target, group, labelled) in enumerate(draw(st.lists(ASKED)))
    ]  # fmt: skip
    named = {image for query in queries for image in (query.reference_id, *query.targets)}
    galleries = {
        name: tuple(dict.fromkeys([*draw(st.lists(IMAGES)), *sorted(named)])) for name in "ab"
    }
    files: dict[ImageId, tuple[str, ...]] = {
        image: (f"{image}.png",) for gallery in galleries.values() for image in gallery
    }
    return Benchmark(galleries=galleries, queries=tuple(queries), files=files)


def pair(row: int, reference: str, target: str, group: str = "") -> Query:
    named = ImageId(reference), (ImageId(target),)
    return Query(QueryId(f"q{row}"), "a", named[0], "text", named[1], group=group)


def over_all_images(queries: Sequence[Query], *others: str) -> Benchmark:
    named = [image for query in queries for image in (query.reference_id, *query.targets)]
    gallery = tuple(dict.fromkeys([*named, *map(ImageId, others)]))
    return Benchmark({"a": gallery}, tuple(queries), {image: (image,) for image in gallery})


def families(number: int, size: int, group: str = "") -> list[Query]:
    """``number`` chains of ``size`` queries each; ``group`` names them, by its number."""
    return [
        pair(
            family * size + step,
            f"{family}-{step}",
            f"{family}-{step + 1}",
            group.format(family),
        )
        for family in range(number)
        for step in range(size)
    ]


def images_of(benchmark: Benchmark) -> set[ImageId]:
    asked = {i for query in benchmark.queries for i in (query.reference_id, *query.targets)}
    return asked | {image for gallery in benchmark.galleries.values() for image in gallery}


def reached(queries: Sequence[Query], start: frozenset[ImageId]) -> set[ImageId]:
    """Everything that belongs together with these images, told step by step."""
    images, groups = set(start), set[str]()
    while True:
        touched = [
            query
            for query in queries
            if query.targets
            and (not images.isdisjoint(images_named(query)) or query.group in groups)
        ]
        more = images.union(*map(images_named, touched))
        named = {query.group for query in touched} - {""}
        if more == images and named <= groups:
            return images
        images, groups = more, groups | named


def images_named(query: Query) -> set[ImageId]:
    return {query.reference_id, *query.targets}


@given(benchmarks())
def test_no_image_that_is_kept_out_is_in_training(benchmark: Benchmark) -> None:
    """Not as reference, as target, or as a negative, which galleries are for."""
    kept, trained = keep_out(benchmark), training_queries(benchmark)
    shown = images_of(trained) | set(trained.files)
    assert kept.images.isdisjoint(shown)
    if kept.whole:
        assert reached(benchmark.queries, kept.images) == kept.images


@given(benchmarks())
def test_negatives_are_images_that_training_queries_name(benchmark: Benchmark) -> None:
    trained = training_queries(benchmark)
    named = {image for query in trained.queries for image in images_named(query)}
    assert images_of(trained) == named == set(trained.files)
    for category, gallery in trained.galleries.items():
        assert list(gallery) == [one for one in benchmark.galleries[category] if one in named]


@given(benchmarks(), st.dictionaries(st.sampled_from("ab"), st.integers(0, 40)))
def test_selection_asks_for_what_is_kept_out_in_the_whole_gallery(
    benchmark: Benchmark, sizes: dict[str, int]
) -> None:
    kept, asked = keep_out(benchmark), selection_queries(benchmark, sizes)
    assert all(not kept.images.isdisjoint(query.targets) for query in asked.queries)
    for query in asked.queries:
        assert {query.reference_id, *query.targets} <= set(asked.galleries[query.category])
    for category, gallery in asked.galleries.items():
        whole = benchmark.galleries[category]
        assert len(gallery) >= min(len(whole), sizes.get(category, len(whole)))
        assert [one for one in whole if one in set(gallery)] == list(gallery)
        assert kept.images & set(whole) <= set(gallery)
    assert images_of(asked) == set(asked.files)


@given(benchmarks())
def test_a_query_is_in_one_part_at_most_and_in_one_where_groups_are_whole(
    benchmark: Benchmark,
) -> None:
    parts = training_queries(benchmark), selection_queries(benchmark, {})
    both = [query.query_id for part in parts for query in part.queries]
    labelled = {query.query_id for query in benchmark.queries if query.targets}
    assert len(set(both)) == len(both)
    assert set(both) <= labelled
    if keep_out(benchmark).whole:
        assert set(both) == labelled


@given(benchmarks(), st.randoms(use_true_random=False))
def test_the_order_of_the_queries_decides_nothing(
    benchmark: Benchmark, shuffle: random.Random
) -> None:
    queries = list(benchmark.queries)
    shuffle.shuffle(queries)
    assert keep_out(replace(benchmark, queries=tuple(queries))) == keep_out(benchmark)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(60, 6), (1000, 100), (6000, 500), (20_000, 600)],  # a tenth, 500, 3 %
)
def test_enough_is_kept_out_for_a_precision_and_training_keeps_the_rest(
    number: int, expected: int
) -> None:
    benchmark = over_all_images(families(number // 4, 4))
    asked = len(selection_queries(benchmark, {}).queries)
    assert expected <= asked < expected + 4
    assert len(training_queries(benchmark).queries) == number - asked


def test_the_draw_is_even_and_fixed() -> None:
    benchmark = over_all_images(families(20_000, 1))
    kept = sorted(int(name.partition("-")[0]) for name in keep_out(benchmark).groups)
    assert len(kept) == SHARE * 20_000
    assert kept[:3] == [41, 68, 101]  # a hash of names, the same everywhere


def test_queries_of_one_group_belong_together_whatever_they_name() -> None:
    """Forty products of two chains each, which no query joins."""
    queries = [
        replace(query, group=f"product {int(query.reference_id.partition('-')[0]) // 2}")
        for query in families(80, 3)
    ]
    kept = keep_out(over_all_images(queries))
    assert kept.whole
    assert all(name.startswith("product") for name in kept.groups)
    for number in range(0, 80, 2):
        chains = {f"{chain}-{step}" for chain in (number, number + 1) for step in range(4)}
        assert len(kept.images & chains) in (0, len(chains))


def test_a_group_that_is_far_too_large_is_passed_over() -> None:
    knot = [pair(row, f"k{row}", "k0") for row in range(300)]
    others = [replace(query, query_id=QueryId(f"o{i}")) for i, query in enumerate(families(50, 2))]
    kept = keep_out(over_all_images([*knot, *others]))
    assert kept.whole
    assert not any(image.startswith("k") for image in kept.images)


def test_of_a_few_large_groups_the_smallest_is_kept_out() -> None:
    sizes = {"monday": 50, "tuesday": 40, "friday": 60}
    queries = [
        pair(row, f"{name}-{row}", f"{name}-{row}'", name)
        for name, size in sizes.items()
        for row in range(size)
    ]
    assert keep_out(over_all_images(queries)).groups == {"tuesday"}


def test_what_is_one_knot_is_kept_out_image_by_image_and_that_is_told() -> None:
    queries = [pair(row, f"{row}", f"{row + 1}") for row in range(400)]
    benchmark = over_all_images(queries)
    assert not keep_out(benchmark).whole
    asked, trained = selection_queries(benchmark, {}), training_queries(benchmark)
    assert len(asked.queries) == 40
    assert keep_out(benchmark).images.isdisjoint(images_of(trained))
    assert "higher than on unseen ones" in asked.notes[-1]


def test_a_bounded_gallery_is_filled_with_whole_groups() -> None:
    benchmark = over_all_images(families(200, 4))
    gallery = selection_queries(benchmark, {"a": 300}).galleries["a"]
    assert 300 <= len(gallery) < 305
    shown = [image.partition("-")[0] for image in gallery]
    assert all(shown.count(family) == 5 for family in shown)


def test_of_too_few_queries_none_is_kept_out_and_a_selection_run_says_so() -> None:
    assert not keep_out(over_all_images([pair(0, "x", "y")])).images
    files = {"captions/cap.dress.train.json": [], "image_splits/split.dress.train.json": ["x"]}
    demo = find_dataset("demo")
    with pytest.raises(PreflightError, match="no training query"):
        demo.parse("selection", ("dress",), files.__getitem__, demo.protocol(None))


def test_selection_is_taken_from_train() -> None:
    assert source_split("selection") == "train"
    assert source_split("val") == "val"
