"""Ragged rows in tiles and padded groups: every row has its place, and padding is bounded."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cir_core.rerankers.dual import grouping, tiles
from cir_core.rerankers.dual.grouping import layout_of_images
from cir_core.rerankers.dual.padding import Layout
from cir_core.rerankers.dual.tiles import STEP, TILE, Tiling, longest_tile


def require_whole(layout: Layout, item_of_row: np.ndarray) -> None:
    """Rows are found where they were put, and a group's places are of its own items, in order."""
    np.testing.assert_array_equal(
        layout.row_of_place[layout.place_of_row], np.arange(len(item_of_row))
    )
    there = np.concatenate([np.repeat(layout.order[one.items], one.each) for one in layout.groups])
    np.testing.assert_array_equal(item_of_row[layout.row_of_place], there)
    assert [one.places.stop for one in layout.groups][-1] == len(layout.row_of_place)


@given(st.lists(st.integers(1, 35) | st.integers(100, 300), min_size=1, max_size=60))
def test_texts_share_tiles(lengths: list[int]) -> None:
    """None is in two; a tile ends where the next text has no room; what is in no text is told."""
    ascending = np.sort(lengths)
    tiling, text_of_row = Tiling.of(ascending), np.repeat(np.arange(len(lengths)), ascending)
    [tokens], [firsts] = tiling.tokens.groups, tiling.firsts.groups
    in_tiles = tiling.text_of_place.reshape(-1, tokens.each).tolist()
    texts_of = [sorted({*some} - {-1}) for some in in_tiles]
    assert set().union(*texts_of) == set(range(len(lengths)))
    assert sum(map(len, texts_of)) == len(lengths)
    tile_of_text = np.repeat(np.arange(len(texts_of)), list(map(len, texts_of)))
    require_whole(tiling.tokens, tile_of_text[text_of_row])
    require_whole(tiling.firsts, tile_of_text)
    assert firsts.each == max(map(len, texts_of))
    there = tiling.text_of_place >= 0
    np.testing.assert_array_equal(
        tiling.text_of_place[there], text_of_row[tiling.tokens.row_of_place[there]]
    )
    assert there.sum() == len(text_of_row)
    assert tokens.each % STEP == 0
    assert tokens.each <= longest_tile(ascending) == max(TILE, -(-max(lengths) // STEP) * STEP)
    rows = [sum(ascending[some].tolist()) for some in texts_of]
    for one, (own, following) in enumerate(pairwise(rows)):
        assert own + ascending[texts_of[one + 1][0]] > longest_tile(ascending)
        assert 2 * longest_tile(ascending) < tiles.MOST_PADDING * (own + following)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.integers(1, 6))
def test_images_that_as_many_rows_look_at_are_together(images: list[int], most: int) -> None:
    looked = np.array(images)
    layout = layout_of_images(looked, most)
    require_whole(layout, looked)
    assert sorted(layout.order.tolist()) == sorted(set(images))
    for one in layout.groups:
        members = layout.order[one.items]
        counts = np.array([images.count(image) for image in members])
        assert len(members) <= most
        assert one.each == counts.max()
        assert one.each * len(members) <= grouping.MOST_PADDING * counts.sum()


def test_images_of_about_as_many_rows_are_one_group() -> None:
    layout = layout_of_images(np.repeat([4, 0, 2, 7], [40, 42, 37, 3]), 64)
    assert [(one.each, layout.order[one.items].tolist()) for one in layout.groups] == [
        (42, [0, 4, 2]),
        (3, [7]),
    ]
