"""Ragged rows in padded groups: every row has its place, and padding is bounded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cir_core.rerankers.dual.grouping import MOST_PADDING, TEXT_STEP, Layout


def require_whole(layout: Layout, item_of_row: np.ndarray) -> None:
    """Rows are found where they were put, and a group's places are of its own items, in order."""
    np.testing.assert_array_equal(
        layout.row_of_place[layout.place_of_row], np.arange(len(item_of_row))
    )
    there = np.concatenate([np.repeat(layout.order[one.items], one.each) for one in layout.groups])
    np.testing.assert_array_equal(item_of_row[layout.row_of_place], there)
    assert [one.places.stop for one in layout.groups][-1] == len(layout.row_of_place)


@given(st.lists(st.integers(1, 35), min_size=1, max_size=60))
def test_texts_are_padded_to_a_step(lengths: list[int]) -> None:
    ascending = np.sort(lengths)
    layout = Layout.of_texts(ascending)
    require_whole(layout, np.repeat(np.arange(len(ascending)), ascending))
    each = [one.each for one in layout.groups]
    assert each == sorted(set(each))
    for one in layout.groups:
        own = ascending[one.items]
        assert one.each % TEXT_STEP == 0
        assert one.each - TEXT_STEP < own.min() <= own.max() <= one.each


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.integers(1, 6))
def test_images_that_as_many_rows_look_at_are_together(images: list[int], most: int) -> None:
    looked = np.array(images)
    layout = Layout.of_images(looked, most)
    require_whole(layout, looked)
    assert sorted(layout.order.tolist()) == sorted(set(images))
    for one in layout.groups:
        members = layout.order[one.items]
        counts = np.array([images.count(image) for image in members])
        assert len(members) <= most
        assert one.each == counts.max()
        assert one.each * len(members) <= MOST_PADDING * counts.sum()


def test_images_of_about_as_many_rows_are_one_group() -> None:
    layout = Layout.of_images(np.repeat([4, 0, 2, 7], [40, 42, 37, 3]), 64)
    assert [(one.each, layout.order[one.items].tolist()) for one in layout.groups] == [
        (42, [0, 4, 2]),
        (3, [7]),
    ]
