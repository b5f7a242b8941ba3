"""What is kept out of training stays out, and is enough to select on."""

from hypothesis import given
from hypothesis import strategies as st

from cir_core.datasets.selection import (
    SHARE,
    is_kept_out,
    selection_queries,
    source_split,
    training_queries,
)
from cir_core.types import Benchmark, ImageId, Query, QueryId

IMAGES = st.integers(0, 400).map(lambda number: ImageId(f"image-{number}"))


@st.composite
def benchmarks(draw: st.DrawFn) -> Benchmark:
    queries = [
        Query(QueryId(f"q{row}"), draw(st.sampled_from("ab")), reference, "text", (target,))
        for row, (reference, target) in enumerate(draw(st.lists(st.tuples(IMAGES, IMAGES))))
    ]
    named = {image for query in queries for image in (query.reference_id, *query.targets)}
    galleries = {
        name: tuple(dict.fromkeys([*draw(st.lists(IMAGES)), *sorted(named)])) for name in "ab"
    }
    files: dict[ImageId, tuple[str, ...]] = {
        image: (f"{image}.png",) for gallery in galleries.values() for image in gallery
    }
    return Benchmark(galleries=galleries, queries=tuple(queries), files=files)


def images_of(benchmark: Benchmark) -> set[ImageId]:
    asked = {i for query in benchmark.queries for i in (query.reference_id, *query.targets)}
    return asked | {image for gallery in benchmark.galleries.values() for image in gallery}


@given(benchmarks())
def test_training_names_no_image_that_is_kept_out(benchmark: Benchmark) -> None:
    trained = training_queries(benchmark)
    assert not any(map(is_kept_out, images_of(trained) | set(trained.files)))
    assert images_of(trained) <= set(trained.files)


@given(benchmarks())
def test_selection_asks_for_what_is_kept_out_in_a_gallery_of_what_it_names(
    benchmark: Benchmark,
) -> None:
    asked = selection_queries(benchmark)
    assert all(is_kept_out(query.targets[0]) for query in asked.queries)
    for query in asked.queries:
        gallery = asked.galleries[query.category]
        assert {query.reference_id, *query.targets} <= set(gallery)
        assert len(set(gallery)) == len(gallery)
    assert images_of(asked) == set(asked.files)


@given(benchmarks())
def test_no_query_is_in_both(benchmark: Benchmark) -> None:
    both = [*training_queries(benchmark).queries, *selection_queries(benchmark).queries]
    assert len({query.query_id for query in both}) == len(both)
    assert set(both) <= set(benchmark.queries)


def test_the_share_is_even_and_fixed() -> None:
    kept = [number for number in range(20_000) if is_kept_out(ImageId(f"B{number:06d}"))]
    assert abs(len(kept) / 20_000 - SHARE) < 0.005
    assert kept[:3] == [77, 79, 185]  # a hash of names, the same everywhere


def test_selection_is_taken_from_train() -> None:
    assert source_split("selection") == "train"
    assert source_split("val") == "val"
