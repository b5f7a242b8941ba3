"""Names of parts tell how much of a shard is there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.shards import order_of, part_name, parts, place_of, rows_in, shards_of, shares_left

FIRST, SECOND, LAST = shards_of(700)


def test_shards_are_named_by_their_pictures() -> None:
    assert [rows_in(shard) for shard in (FIRST, SECOND, LAST)] == [
        range(256),
        range(256, 512),
        range(512, 700),
    ]
    assert shards_of(0) == ["0000000-0000000"]


def test_shards_stay_in_order_where_pictures_have_more_digits_than_zeros_fill() -> None:
    shards = shards_of(10_000_700)[-5:]
    assert shards[0] == "9999616-9999872"
    assert shards[-1] == "10000640-10000700"
    assert sorted([*shards, FIRST], key=order_of) == [FIRST, *shards] != sorted([*shards, FIRST])


def test_a_shard_that_is_not_split_is_named_by_itself() -> None:
    assert [part.name for part in parts(SECOND, 9, 9)] == ["0000256-0000512"] == [SECOND]
    assert [part.name for part in parts(SECOND, 0, 9)] == [SECOND]


def test_a_part_of_a_shard_says_which_of_how_many() -> None:
    assert [part.name for part in parts(SECOND, 5, 4)] == [
        "0000256-0000512-0000000000-0000000004-of-5",
        "0000256-0000512-0000000004-0000000005-of-5",
    ]


@pytest.mark.parametrize("kind", ["scores", "tokens"])
def test_a_name_tells_kind_and_shard(kind: str) -> None:
    suffix = ".npy" if kind == "tokens" else ""
    assert place_of(part_name(kind, SECOND) + suffix)[:2] == (kind, SECOND)
    assert place_of(part_name(kind, ""))[:2] == (kind, "")
    split = place_of(part_name(kind, parts(SECOND, 5, 4)[1].name))
    assert split == (kind, SECOND, 4, 1 / 5)


@given(st.integers(0, 40), st.integers(1, 9), st.data())
def test_what_is_left_of_a_shard_is_what_its_parts_lack(
    items: int, size: int, data: st.DataObject
) -> None:
    every = parts(SECOND, items, size)
    others = [part_name("scores", part.name) for part in parts(LAST, items, size)]
    kept = data.draw(st.lists(st.sampled_from(every), unique=True))
    names = [part_name("scores", part.name) for part in kept]
    left = shares_left([*names, *others], [SECOND, LAST], ["scores"])
    missing = items - sum(len(part.items) for part in kept)
    assert set(left) == ({SECOND} if len(kept) < len(every) else set())
    assert left.get(SECOND, 0) == pytest.approx(missing / items if items else len(left))


def test_the_kind_that_lacks_most_counts() -> None:
    names = [part_name("queries", part.name) for part in parts(FIRST, 4, 1)[:3]]
    kinds = ["queries", "unfused"]
    assert shares_left(names, [FIRST], kinds) == {FIRST: 1.0}
    assert shares_left([*names, part_name("unfused", FIRST)], [FIRST], kinds) == {FIRST: 0.25}
